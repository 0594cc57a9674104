"""Each family's faults are caught where they belong, and nothing is found where there is none."""

from __future__ import annotations

import pytest

from yolo_stable.validate import BACKENDS, FAULTS, KernelFault, Status, find_fault
from yolo_stable.validate.battery import BATTERY, cases
from yolo_stable.validate.changes import CHANGES
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.simulated import SimulatedDevice

SLOW = ("shadow", "step", "short", "determinism", "assign")
"""Families whose faults `benchmarks/device_faults.py` proves; here they would cost minutes."""
FAST = [fault for fault in FAULTS if fault.family not in SLOW and fault.change not in ("hang", "die")]


@pytest.mark.parametrize("fault", FAST, ids=lambda fault: fault.name)
def test_a_fault_fires_and_is_caught_at_the_right_check(fault: KernelFault) -> None:
    machine = SimulatedDevice(BACKENDS["cpu"], fault)
    executor = Executor(machine)
    for wanted in fault.caught_by:
        found = [c for c in cases("quick", "cpu") if c.check.id.startswith(wanted) and c.precision != "configured"]
        assert any(executor.run(case).status is Status.FAIL for case in found), wanted
    assert machine.fired > 0


def test_there_are_forty_kinds_of_faults_in_every_family_that_computes() -> None:
    assert len({(fault.family, fault.kind) for fault in FAULTS}) >= 40
    assert {fault.family for fault in FAULTS} == {check.family for check in BATTERY} - {"env"}
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
    assert {fault.change for fault in FAULTS} == set(CHANGES)


@pytest.mark.parametrize(
    "name", ["tf32", "bitflip", "zero-tail", "nan-tail", "bn-eps", "wgrad-scale", "running-var-3pct", "fp16-accumulate"]
)
def test_the_names_that_the_command_promises_are_there(name: str) -> None:
    assert find_fault(name).name == name


def test_ids_are_unique_and_every_gate_has_a_reason_and_a_source() -> None:
    ids = [case.id for case in cases("full", "cpu")]
    assert len(ids) == len(set(ids))
    for check in BATTERY:
        assert all(gate.reason and gate.source for gate in check.gates.values()), check.id


def test_rounding_to_tf32_is_named() -> None:
    executor = Executor(SimulatedDevice(BACKENDS["cpu"], find_fault("tf32")))
    case = next(c for c in cases("quick", "cpu") if c.id == "linear/matmul-nn/contiguous/strict")
    assert executor.run(case).precision_class == "tf32"
    assert Executor(Machine(BACKENDS["cpu"])).run(case).precision_class == "ieee-fp32"
