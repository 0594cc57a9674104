"""Machine that is meant: a real one, a real one with a fault, or one that only claims to be of a kind."""

from __future__ import annotations

from .backend import BACKENDS
from .faults import find_fault
from .machine import Machine, probe
from .simulated import SimulatedDevice

SIMULATED = "simulated-"


def machine_for(device: str | None, inject: str | None) -> Machine:
    """Return the machine for a device's name and a fault's.

    Args:
        device: As for ``probe``; or ``simulated-rocm`` and the like: the CPU, in the role of that kind of device.
        inject: A fault's name; followed by ``@NAME=value``, the fault goes away under that setting.

    Returns:
        The machine.

    Raises:
        InvalidCallError: There is no such device or fault.
    """
    name, _, healed_by = (inject or "").partition("@")
    fault = find_fault(name) if name else None
    if device is not None and device.startswith(SIMULATED) and device.removeprefix(SIMULATED) in BACKENDS:
        return SimulatedDevice(BACKENDS[device.removeprefix(SIMULATED)], fault, "cpu", healed_by or None)
    machine = probe(device)
    return machine if fault is None else SimulatedDevice(machine.backend, fault, str(machine.device), healed_by or None)
