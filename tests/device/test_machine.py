"""Which device is meant, with no such device here: the facts of the build are patched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from yolo_stable.device import BACKENDS
from yolo_stable.device import machine as machines
from yolo_stable.device.backend import is_available, is_cuda, is_rocm
from yolo_stable.device.check import Case
from yolo_stable.device.checks.env import CHECKS
from yolo_stable.device.hashed import Draw
from yolo_stable.device.inject import machine_for
from yolo_stable.device.operations.env import environment
from yolo_stable.errors import InvalidCallError


def build(
    *, hip: str | None = None, cuda: str | None = None, gpu: bool = False, mps: bool = False, xpu: bool = False
) -> Any:
    """Return as much of torch as the predicates ask."""
    return SimpleNamespace(
        version=SimpleNamespace(hip=hip, cuda=cuda),
        cuda=SimpleNamespace(is_available=lambda: gpu),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
        xpu=SimpleNamespace(is_available=lambda: xpu),
        __version__="2.14",
    )


@pytest.mark.parametrize(
    ("torch_like", "found"),
    [
        pytest.param(build(cuda="12.8", gpu=True), {"cuda", "cpu"}, id="NVIDIA"),
        pytest.param(build(hip="6.4", gpu=True), {"rocm", "cpu"}, id="AMD"),
        pytest.param(build(hip="6.4"), {"cpu"}, id="AMD without a card"),
        pytest.param(build(mps=True), {"mps", "cpu"}, id="Apple"),
        pytest.param(build(xpu=True), {"xpu", "cpu"}, id="Intel"),
    ],
)
def test_cuda_and_rocm_are_told_apart_by_the_build(torch_like: Any, found: set[str]) -> None:
    assert {name for name, backend in BACKENDS.items() if is_available(torch_like, backend)} == found
    assert is_rocm(torch_like) == (torch_like.version.hip is not None)
    assert not (is_cuda(torch_like) and is_rocm(torch_like))


def test_no_name_means_the_best_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machines.probe().backend.name == "cpu"
    monkeypatch.setattr(machines, "is_available", lambda _, backend: backend.name in ("rocm", "cpu"))
    assert (machines.probe().backend.name, machines.probe().device.type) == ("rocm", "cuda")


def test_a_device_that_is_not_there_is_named_with_what_torch_was_built_for() -> None:
    with pytest.raises(InvalidCallError, match=r"'rocm:1' is not there: torch .* \(cuda .*, hip None\)"):
        machines.probe("rocm:1")


def test_a_card_of_another_kind_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_for("simulated-rocm", None)
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "10.3.0")
    evidence = environment(machine, Case(check=CHECKS[0], layout="contiguous", precision="exact"), Draw("x"))
    assert ["HSA_OVERRIDE_GFX_VERSION=10.3.0" in warning for warning in evidence.warnings] == [True]


def test_every_setting_can_be_pasted() -> None:
    lines = {setting.line for backend in BACKENDS.values() for setting in backend.heals}
    assert "export MIOPEN_DEBUG_CONV_WINOGRAD=0" in lines
    assert "unset HSA_OVERRIDE_GFX_VERSION" in lines
    assert "torch.backends.cudnn.enabled = False" in lines


def test_strict_switches_are_put_back() -> None:
    machine = machines.probe("cpu")
    before = machine.environment()["switches"]
    with machine.computing():
        assert machines.snapshot()["cudnn.conv.fp32_precision"] == "ieee"
    assert machine.environment()["switches"] == before
    assert torch.backends.cudnn.enabled
