"""Backends as data: how a kind of device is found, its precision switches, and the settings that may heal a failing check."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class HealSetting:
    """A change of the environment under which a check is tried again, in a process of its own."""

    name: str
    """As it is shown."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables; set before torch is imported. An empty value takes the variable away."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """Attributes below ``torch.backends``, such as ``cudnn.enabled``."""
    reason: str = ""
    """What it avoids, and the source."""

    @property
    def line(self) -> str:
        """Return the line to paste: into a shell, or for flags into Python."""
        shell = [f"export {name}={value}" if value else f"unset {name}" for name, value in self.env.items()]
        return "; ".join([*shell, *(_statement(name, value) for name, value in self.flags.items())])


def _statement(name: str, value: Any) -> str:
    if name == "mkldnn.enabled":  # its module refuses plain assignment
        return f"torch.backends.mkldnn.set_flags({value!r})"
    is_function = ".enable_" in name
    return f"torch.backends.{name}({value!r})" if is_function else f"torch.backends.{name} = {value!r}"


def _env(name: str, value: str, reason: str) -> HealSetting:
    return HealSetting(name=f"{name}={value}", env={name: value}, reason=reason)


_NO_CUDNN = HealSetting(name="cudnn.enabled=False", flags={"cudnn.enabled": False}, reason="torch's own kernels")
_MATH_SDPA = HealSetting(
    name="sdpa=math",
    flags={"cuda.enable_flash_sdp": False, "cuda.enable_mem_efficient_sdp": False, "cuda.enable_cudnn_sdp": False},
    reason="attention in plain operations (aotriton#183, pytorch#147460)",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceBackend:
    """A kind of device, before one is touched."""

    name: str
    """``cuda``, ``rocm``, ``mps``, ``xpu`` or ``cpu``."""
    device_type: str
    """What torch calls it; CUDA and ROCm are both ``cuda``."""
    reduced: tuple[str, ...]
    """Switches below ``torch.backends`` that reduce the precision of float32, those of older versions of torch included."""
    heals: tuple[HealSetting, ...]
    """What the search tries, in this order."""
    variables: str
    """Regular expression of the environment variables that matter."""


_COMMON = "TORCH|PYTORCH|OMP|MKL|KMP"
_CUDA_SWITCHES = (
    "cuda.matmul.fp32_precision", "cudnn.conv.fp32_precision", "cuda.matmul.allow_tf32", "cudnn.allow_tf32",
)  # fmt: skip
_ONEDNN_SWITCHES = ("mkldnn.conv.fp32_precision", "mkldnn.matmul.fp32_precision", "mkldnn.allow_tf32")
_MIOPEN = "one kind of MIOpen's kernels off (pytorch#102968, MIOpen#670)"

BACKENDS = {
    backend.name: backend
    for backend in (
        DeviceBackend(
            name="cuda",
            device_type="cuda",
            reduced=_CUDA_SWITCHES,
            heals=(
                HealSetting(name="cudnn.benchmark=False", flags={"cudnn.benchmark": False}, reason="no search for a kernel"),
                HealSetting(name="cudnn.deterministic=True", flags={"cudnn.deterministic": True}, reason="other kernels"),
                _env("NVIDIA_TF32_OVERRIDE", "0", "TF32 off in all NVIDIA libraries"),
                _NO_CUDNN,
                _MATH_SDPA,
            ),
            variables=f"^({_COMMON}|CUDA|CUBLAS|CUDNN|NVIDIA_TF32_OVERRIDE)",
        ),
        DeviceBackend(
            name="rocm",
            device_type="cuda",
            reduced=_CUDA_SWITCHES,
            heals=(
                HealSetting(name="HSA_OVERRIDE_GFX_VERSION unset", env={"HSA_OVERRIDE_GFX_VERSION": ""},
                        reason="kernels of another card (legacy-rocm-build#2048)"),
                _env("MIOPEN_DEBUG_CONV_IMPLICIT_GEMM", "0", _MIOPEN),
                _env("MIOPEN_DEBUG_CONV_WINOGRAD", "0", _MIOPEN),
                _env("MIOPEN_DEBUG_CONV_DIRECT", "0", _MIOPEN),
                _env("MIOPEN_DEBUG_CONV_GEMM", "0", _MIOPEN),
                _env("MIOPEN_DEBUG_CONV_FFT", "0", _MIOPEN),
                _env("TORCH_BLAS_PREFER_HIPBLASLT", "0", "rocBLAS instead of hipBLASLt (TheRock#7870)"),
                _env("TORCH_BLAS_PREFER_HIPBLASLT", "1", "hipBLASLt instead of rocBLAS"),
                _env("PYTORCH_MIOPEN_SUGGEST_NHWC", "0", "no channels_last kernels"),
                _env("PYTORCH_MIOPEN_SUGGEST_NHWC_BATCHNORM", "0", "no channels_last BatchNorm (ROCm/pytorch#1561)"),
                _env("ROCBLAS_INTERNAL_FP16_ALT_IMPL", "1", "float16 without flushed denormals on MI200"),
                _env("MIOPEN_DEBUG_CONVOLUTION_ATTRIB_FP16_ALT_IMPL", "1", "the same for convolutions"),
                _NO_CUDNN,
                _MATH_SDPA,
            ),
            variables=f"^({_COMMON}|MIOPEN|HIP|HSA|ROC|ROCBLAS|HIPBLASLT|AMD|GPU|CUDA_VISIBLE)",
        ),
        DeviceBackend(
            name="mps",
            device_type="mps",
            reduced=(),
            heals=(
                _env("PYTORCH_ENABLE_MPS_FALLBACK", "1", "what has no kernel runs on the CPU"),
                _env("PYTORCH_MPS_PREFER_METAL", "1", "Metal kernels for products"),
                _env("PYTORCH_MPS_FAST_MATH", "0", "no fast math in Metal kernels"),
            ),
            variables=f"^({_COMMON}|MPS|METAL|MTL)",
        ),
        DeviceBackend(
            name="xpu",
            device_type="xpu",
            reduced=_ONEDNN_SWITCHES,
            heals=(
                HealSetting(name="mkldnn.enabled=False", flags={"mkldnn.enabled": False}, reason="no oneDNN kernels"),
                _MATH_SDPA,
            ),
            variables=f"^({_COMMON}|SYCL|ONEAPI|ZE_|NEO|IGC|ONEDNN|DNNL|IPEX)",
        ),
        DeviceBackend(
            name="cpu",
            device_type="cpu",
            reduced=_ONEDNN_SWITCHES,
            heals=(
                HealSetting(name="mkldnn.enabled=False", flags={"mkldnn.enabled": False},
                        reason="no oneDNN kernels (pytorch#163347)"),
                _env("ONEDNN_MAX_CPU_ISA", "AVX2", "older instructions in oneDNN"),
                _env("ATEN_CPU_CAPABILITY", "default", "no vector instructions in torch's kernels"),
                _env("OMP_NUM_THREADS", "1", "one thread"),
            ),
            variables=f"^({_COMMON}|ONEDNN|DNNL|ATEN|MKLDNN)",
        ),
    )
}  # fmt: skip


def is_rocm(torch: Any) -> bool:
    """Return whether this torch was built for ROCm: a fact of the build, not of a device's name."""
    return getattr(torch.version, "hip", None) is not None


def is_cuda(torch: Any) -> bool:
    """Return whether this torch was built for CUDA, and not for ROCm, which answers to ``torch.cuda`` as well."""
    return getattr(torch.version, "cuda", None) is not None and not is_rocm(torch)


def is_available(torch: Any, backend: DeviceBackend) -> bool:
    """Return whether a device of this backend can be used in this process; ``torch`` is the module."""
    if backend.device_type == "cpu":
        return True
    if backend.device_type == "cuda":
        right_build = is_rocm(torch) if backend.name == "rocm" else is_cuda(torch)
        return right_build and bool(torch.cuda.is_available())
    if backend.device_type == "mps":
        return bool(torch.backends.mps.is_available())
    return hasattr(torch, "xpu") and bool(torch.xpu.is_available())


def environment_variables(backend: DeviceBackend) -> dict[str, str]:
    """Return the environment variables that can change what this backend computes."""
    pattern = re.compile(backend.variables)
    return {name: value for name, value in sorted(os.environ.items()) if pattern.match(name)}
