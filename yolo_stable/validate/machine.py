"""Machine: a device at work. Whatever a fault can touch goes through it: placing tensors, computing, fetching results."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidCallError
from .backend import BACKENDS, DeviceBackend, environment_variables, is_available, is_rocm
from .driver import driver_version, processor_name
from .precision import STRICT, reduced_on, snapshot, switched

_DIRTY = (64, 1024, 16384, 262144, 1048576)
"""Elements of float32 in the free blocks that are dirtied before an operation takes its memory there."""


class Machine:
    """A real device, such as ``cuda:1``; None: the first of its kind."""

    def __init__(self, backend: DeviceBackend, device: str | None = None) -> None:
        self.backend = backend
        self.device = torch.device(device or backend.device_type)

    @property
    def name(self) -> str:
        """Return what the driver calls the device."""
        if self.device.type in ("cuda", "xpu"):
            return str(getattr(torch, self.device.type).get_device_name(self.device))
        return processor_name() or platform.machine()

    @contextmanager
    def computing(self, *, strict: bool = True) -> Iterator[None]:
        """Let the device compute what is within; when ``strict``, with every reduced precision off."""
        with switched(STRICT) if strict else contextlib.nullcontext():
            yield

    def place(self, tensor: Tensor) -> Tensor:
        """Return the tensor on the device, strides kept."""
        return tensor.to(self.device)

    def fetch(self, tensor: Tensor) -> Tensor:
        """Return a copy on the CPU. Syncs: one."""
        return tensor.detach().to("cpu", copy=True)

    def dirty(self, value: float, most: int = _DIRTY[-1]) -> None:
        """Fill free memory with a value: an element that a kernel leaves unwritten shows then.

        The blocks are freed at once, and the allocator hands them out to what comes next. Blocks of more than ``most``
        elements would cost time and be of no use.
        """
        sizes = [n for n in _DIRTY if n <= max(most, _DIRTY[0])]
        blocks = [torch.full((n,), value, device=self.device) for n in sizes for _ in range(2)]
        del blocks

    def synchronize(self) -> None:
        """Wait for the device. Syncs: one."""
        if self.device.type in ("cuda", "xpu", "mps"):
            getattr(torch, self.device.type).synchronize()

    def empty_cache(self) -> None:
        """Give cached memory back."""
        if self.device.type in ("cuda", "xpu", "mps"):
            getattr(torch, self.device.type).empty_cache()

    def reduced(self) -> list[str]:
        """Return the switches that reduce the precision of float32, as configured."""
        return reduced_on(self.backend.reduced)

    def environment(self) -> dict[str, Any]:
        """Return what a report about this device must say: versions, hardware, switches, variables."""
        facts: dict[str, Any] = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "system": platform.platform(),
            "backend": self.backend.name,
            "device": str(self.device),
            "device_name": self.name,
            "cuda": torch.version.cuda,
            "hip": getattr(torch.version, "hip", None),
            "driver": driver_version(self.backend.name),
            "threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "switches": snapshot(),
            "variables": environment_variables(self.backend),
        }
        if self.device.type == "cuda":
            facts |= self._cuda_facts()
        return facts

    def _cuda_facts(self) -> dict[str, Any]:
        properties: Any = torch.cuda.get_device_properties(self.device)
        return {
            "capability": None if is_rocm(torch) else list(torch.cuda.get_device_capability(self.device)),
            "gcn_arch": getattr(properties, "gcnArchName", None) if is_rocm(torch) else None,
            "arch_list": torch.cuda.get_arch_list(),
            "memory": int(properties.total_memory),
            "uuid": str(getattr(properties, "uuid", "")),
            "cudnn": torch.backends.cudnn.version(),
            "blas": str(torch.backends.cuda.preferred_blas_library()),
        }


def probe(device: str | None = None) -> Machine:
    """Return the device that is asked for, after something was computed on it.

    Args:
        device: ``cuda``, ``cuda:1``, ``rocm``, ``rocm:1``, ``mps``, ``xpu``, ``cpu``, or a plain number as in Ultralytics;
            None: the best one here, ROCm or CUDA before XPU, MPS and CPU.

    Raises:
        InvalidCallError: There is none of that name here, or it cannot add two numbers.
    """
    if device is None:
        order = ("rocm", "cuda", "xpu", "mps", "cpu")
        return Machine(next(BACKENDS[name] for name in order if is_available(torch, BACKENDS[name])))
    kind, _, index = ("cuda", "", device) if device.isdigit() else device.partition(":")
    if kind not in BACKENDS or (index and not index.isdigit()):
        raise InvalidCallError(f"There is no kind of device called {device!r}. Use one of {', '.join(BACKENDS)}.")
    if index and kind in ("cpu", "mps"):
        raise InvalidCallError(f"The device {device!r} is not there: there is one {kind} only. Try --device {kind}.")
    if kind == "cuda" and is_rocm(torch):
        kind = "rocm"  # torch's own name for both
    backend = BACKENDS[kind]
    if not is_available(torch, backend):
        built = f"torch {torch.__version__} (cuda {torch.version.cuda}, hip {getattr(torch.version, 'hip', None)})"
        raise InvalidCallError(f"The device {device!r} is not there: {built} finds none. Try --device cpu.")
    machine = Machine(backend, f"{backend.device_type}:{index}" if index else None)
    try:
        sum_of_two = float((torch.ones(2, device=machine.device) + 1).sum())
    except (RuntimeError, AssertionError) as error:
        raise InvalidCallError(f"The device {device!r} cannot be used: {' '.join(str(error).split())[:200]}") from error
    if sum_of_two != 4.0:
        raise InvalidCallError(
            f"The device {device!r} says that 2 + 2 is {sum_of_two}: it cannot be validated. Restart it, or use another."
        )
    return machine
