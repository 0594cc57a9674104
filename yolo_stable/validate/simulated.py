"""Simulated devices: results of the CPU, or of the device that is really there, changed where a fault says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from .backend import BACKENDS, DeviceBackend
from .changes import CHANGES, FaultyCall
from .faults import KernelFault, find_fault
from .machine import Machine, probe
from .precision import read

SIMULATED = "simulated-"


def machine_for(device: str | None, inject: str | None) -> Machine:
    """Return a real machine, one with a fault, or one that only claims to be of a kind.

    Args:
        device: As for ``probe``; or ``simulated-rocm`` and the like: the CPU, in the role of that kind of device.
        inject: A fault's name; followed by ``@NAME=value``, the fault goes away under that setting.

    Raises:
        InvalidCallError: There is no such device or fault.
    """
    name, _, healed_by = (inject or "").partition("@")
    fault = find_fault(name) if name else None
    if device is not None and device.startswith(SIMULATED) and device.removeprefix(SIMULATED) in BACKENDS:
        return SimulatedDevice(BACKENDS[device.removeprefix(SIMULATED)], fault, "cpu", healed_by or None)
    machine = probe(device)
    return machine if fault is None else SimulatedDevice(machine.backend, fault, str(machine.device), healed_by or None)


class FaultMode(TorchDispatchMode):
    """Changes the results of a fault's operations, forward and backward, wherever they are called from."""

    def __init__(self, fault: KernelFault) -> None:
        super().__init__()
        self.fault = fault
        self.fired = 0
        """How often a result was changed; never reset."""
        self.calls = 0
        self.kept: dict[Any, Any] = {}
        """What a change keeps between calls."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        if str(func).split(".")[1] not in self.fault.operations:
            return func(*args, **kwargs)
        call = FaultyCall(func=func, args=tuple(args), kwargs=kwargs, kept=self.kept)
        if not self.fault.fits(call):
            return func(*args, **kwargs)
        self.calls += 1
        if self.calls % self.fault.every:
            return func(*args, **kwargs)
        self.fired += 1
        return CHANGES[self.fault.change](call, self.fault)


class SimulatedDevice(Machine):
    """A machine whose operations have a fault.

    Args:
        backend: The kind of device that it claims to be: its settings are what the healing search tries.
        fault: What is wrong; None: nothing.
        device: Where results come from.
        healed_by: A setting under which the fault does not show: ``NAME=value`` of an environment variable, or of a switch
            below ``torch.backends``.
    """

    def __init__(
        self,
        backend: DeviceBackend,
        fault: KernelFault | None,
        device: str | None = "cpu",
        healed_by: str | None = None,
    ) -> None:
        super().__init__(backend, device)
        self.mode = FaultMode(fault) if fault is not None else None
        self._healed_by = healed_by

    @property
    def name(self) -> str:
        """Return what it claims to be."""
        return f"{super().name} (simulated {self.backend.name})"

    @property
    def is_healed(self) -> bool:
        """Return whether the setting that removes the fault is in force."""
        if self._healed_by is None:
            return False
        name, _, value = self._healed_by.partition("=")
        return str(read(name)) == value if "." in name else os.environ.get(name, "") == value

    @property
    def fired(self) -> int:
        """Return how often the fault has changed a result."""
        return self.mode.fired if self.mode is not None else 0

    @contextmanager
    def computing(self, *, strict: bool = True) -> Iterator[None]:
        """As on a real device, with the fault."""
        with super().computing(strict=strict):
            if self.mode is None or self.is_healed:
                yield
            else:
                with self.mode:
                    yield

    def place(self, tensor: Tensor) -> Tensor:
        """As on a real device; the CPU has no transfers, so their faults are put in here."""
        return self._transferred(super().place(tensor), "to_device")

    def fetch(self, tensor: Tensor) -> Tensor:
        """As on a real device; the same."""
        return self._transferred(super().fetch(tensor), "to_host")

    def _transferred(self, tensor: Tensor, way: str) -> Tensor:
        if self.mode is None or self.is_healed or way not in self.mode.fault.operations:
            return tensor
        call = FaultyCall(func=lambda t: t.clone(), args=(tensor,), kwargs={}, kept=self.mode.kept)
        if not self.mode.fault.fits(call):
            return tensor
        self.mode.fired += 1
        return CHANGES[self.mode.fault.change](call, self.mode.fault)
