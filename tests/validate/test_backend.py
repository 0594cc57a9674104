"""What is known of each kind of device: told apart by facts of the build, and healed by lines that can be pasted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from yolo_stable.validate import BACKENDS, HealSetting
from yolo_stable.validate.backend import environment_variables, is_available, is_cuda, is_rocm
from yolo_stable.validate.precision import read


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
        pytest.param(build(hip="6.4", cuda="12.8", gpu=True), {"rocm", "cpu"}, id="AMD that names both"),
        pytest.param(build(hip="6.4"), {"cpu"}, id="AMD without a card"),
        pytest.param(build(mps=True), {"mps", "cpu"}, id="Apple"),
        pytest.param(build(xpu=True), {"xpu", "cpu"}, id="Intel"),
    ],
)
def test_cuda_and_rocm_are_told_apart_by_the_build(torch_like: Any, found: set[str]) -> None:
    assert {name for name, backend in BACKENDS.items() if is_available(torch_like, backend)} == found
    assert is_rocm(torch_like) == (torch_like.version.hip is not None)
    assert not (is_cuda(torch_like) and is_rocm(torch_like))


@pytest.mark.parametrize(
    ("backend", "lines"),
    [
        (
            "rocm",
            {
                "unset HSA_OVERRIDE_GFX_VERSION",
                *(
                    f"export MIOPEN_DEBUG_CONV_{kind}=0"
                    for kind in ("IMPLICIT_GEMM", "WINOGRAD", "DIRECT", "GEMM", "FFT")
                ),
                *(f"export TORCH_BLAS_PREFER_HIPBLASLT={value}" for value in (0, 1)),
                *(f"export PYTORCH_MIOPEN_SUGGEST_NHWC{what}=0" for what in ("", "_BATCHNORM")),
                "torch.backends.cudnn.enabled = False",
            },
        ),
        ("cuda", {"torch.backends.cudnn.enabled = False", "export NVIDIA_TF32_OVERRIDE=0"}),
        ("mps", {"export PYTORCH_ENABLE_MPS_FALLBACK=1"}),
        ("xpu", {"torch.backends.mkldnn.set_flags(False)"}),
        ("cpu", {"export ONEDNN_MAX_CPU_ISA=AVX2"}),
    ],
)
def test_what_maintainers_of_drivers_try_by_hand_is_tried(backend: str, lines: set[str]) -> None:
    assert lines <= {setting.line for setting in BACKENDS[backend].heals}
    assert all(setting.reason for setting in BACKENDS[backend].heals)


@pytest.mark.parametrize("setting", [s for b in BACKENDS.values() for s in b.heals], ids=lambda s: s.name)
def test_every_known_setting_is_a_line_that_can_be_pasted(setting: HealSetting) -> None:
    for line in setting.line.split("; "):
        if line.startswith("torch."):
            compile(line, "line", "exec")
        else:
            assert line.split()[0] in ("export", "unset")


@pytest.mark.parametrize("setting", [s for b in BACKENDS.values() for s in b.heals if s.flags], ids=lambda s: s.name)
def test_a_line_of_python_does_what_the_setting_does(setting: HealSetting) -> None:
    before = {name: read(name) for name in setting.flags}
    try:
        exec(setting.line, {"torch": torch})
        assert {name: read(name) for name in setting.flags} == dict(setting.flags)
    finally:
        for name, value in before.items():
            exec(HealSetting(name=name, flags={name: value}).line, {"torch": torch})
    assert {name: read(name) for name in setting.flags} == before


def test_the_variables_that_matter_are_kept_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {
        "rocm": "MIOPEN_FIND_MODE",
        "cuda": "CUBLAS_WORKSPACE_CONFIG",
        "mps": "MTL_DEBUG_LAYER",
        "xpu": "SYCL_CACHE",
        "cpu": "DNNL_X",
    }
    for name in (*names.values(), "AWS_SECRET"):
        monkeypatch.setenv(name, "1")
    for backend, name in names.items():
        found = environment_variables(BACKENDS[backend])
        assert name in found
        assert "AWS_SECRET" not in found
