"""Which switches reduce float32 on which backend, read and put back; nothing of it needs the device."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.validate import BACKENDS
from yolo_stable.validate.precision import STRICT, read, reduced_on, switched, write


@pytest.mark.parametrize(
    ("backend", "switch", "value"),
    [
        ("cuda", "cudnn.conv.fp32_precision", "tf32"),
        ("cuda", "cuda.matmul.fp32_precision", "tf32"),
        ("rocm", "cuda.matmul.fp32_precision", "tf32"),
        ("xpu", "mkldnn.matmul.fp32_precision", "tf32"),
        ("cpu", "mkldnn.conv.fp32_precision", "bf16"),
    ],
)
def test_a_switch_that_reduces_float32_is_reported_for_the_backends_that_heed_it(
    backend: str, switch: str, value: str
) -> None:
    with switched(STRICT):
        assert reduced_on(BACKENDS[backend].reduced) == []
        with switched({switch: value}):
            assert reduced_on(BACKENDS[backend].reduced) == [switch]
            deaf = {"cuda", "rocm"} if switch.startswith("mkldnn") else {"cpu", "xpu"}
            assert not any(switch in reduced_on(BACKENDS[other].reduced) for other in deaf | {"mps"})


def test_convolutions_are_tf32_as_torch_comes() -> None:
    assert reduced_on(BACKENDS["cuda"].reduced) == ["cudnn.conv.fp32_precision"]
    assert reduced_on(BACKENDS["mps"].reduced) == []


def test_strict_covers_every_switch_that_any_backend_reports() -> None:
    reported = {name for backend in BACKENDS.values() for name in backend.reduced if not name.endswith("allow_tf32")}
    assert reported <= STRICT.keys()
    before = {name: read(name) for name in STRICT}
    with switched(STRICT):
        assert all(reduced_on(backend.reduced) == [] for backend in BACKENDS.values())
    assert {name: read(name) for name in STRICT} == before


def test_a_switch_that_this_torch_does_not_have_is_told() -> None:
    assert (read("cudnn.nope"), write("cudnn.nope", True), write("nope.nope", True)) == (None, False, False)
    assert torch.backends.cudnn.enabled
