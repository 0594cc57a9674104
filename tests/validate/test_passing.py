"""What loses NaN or infinity in a call that health is read from fails the quick validation, in each type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from yolo_stable.validate import BACKENDS, KernelFault, Status
from yolo_stable.validate import simulated as devices
from yolo_stable.validate.battery import cases
from yolo_stable.validate.changes import FaultyCall, edited
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.operations import passing
from yolo_stable.validate.simulated import SimulatedDevice

LOSES: dict[str, Callable[[Tensor], Tensor]] = {
    "nan": lambda t: t.masked_fill(t != t, 0.0),
    "infinity": lambda t: torch.where(t.abs() == torch.inf, torch.finfo(t.dtype).max * t.sign(), t),
}
PRECISIONS = {"strict": "float32", "float16": "float16", "bfloat16": "bfloat16"}
SWALLOW = {
    "foreach-norm": ("_foreach_norm",), "norm": ("linalg_vector_norm",), 
    "max": ("max", "amax"), "min": ("min", "amin"), "aminmax": ("aminmax",), "maximum": ("maximum", "minimum", "clamp"),
    "sum": ("sum", "mean", "cumsum"), "foreach": ("_foreach_mul", "_foreach_add", "_foreach_lerp", "_foreach_addcdiv"),
    "foreach-in-place": ("_foreach_mul_", "_foreach_add_", "_foreach_lerp_", "_foreach_addcdiv_", "_foreach_copy_"),
    "fused-sgd": ("_fused_sgd_",), "fused-adamw": ("_fused_adamw_",),
    "copies": ("clone", "cat", "stack", "to_host", "to_device"),
}  # fmt: skip
"""By the name of the check that has to see it."""
NAN_ONLY = ("clamp", "_fused_adamw_")
"""What gives no infinity: a bound takes its place, and Adam divides it by itself."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the largest tensors out: they show the same, later."""
    monkeypatch.setattr(passing, "SIZES", (1, 33))


def fault_of(operation: str, change: str, precision: str, note: str = "") -> KernelFault:
    """Return a fault of one operation in one type; that of the loss scaler sees float32 alone."""
    return KernelFault(
        name="loses", kind="loses", family="exact", operations=(operation,), change=change, caught_by=("exact/passes-",),
        dtypes=(PRECISIONS[precision],), note=note,
    )  # fmt: skip


def failing(name: str, precision: str, fault: KernelFault) -> None:
    """Assert that a fault fires, and that the check fails."""
    device = SimulatedDevice(BACKENDS["cpu"], fault)
    wanted = f"exact/passes-{name}/contiguous/{precision}"
    case = next(case for case in cases("quick", "cpu") if case.id == wanted)
    status = Executor(device).run(case).status
    assert device.fired > 0, fault
    assert status is Status.FAIL, fault


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("name", "operation"), [(name, each) for name, all_of in SWALLOW.items() for each in all_of])
def test_a_call_that_swallows_what_is_not_finite_fails(
    monkeypatch: pytest.MonkeyPatch, name: str, operation: str, precision: str
) -> None:
    monkeypatch.setitem(devices.CHANGES, "loses", lambda call, fault: edited(call, fault, LOSES[fault.note]))
    for lost in LOSES if operation not in NAN_ONLY else ("nan",):
        failing(name, precision, fault_of(operation, "loses", precision, lost))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("operation", "says"), [("eq", True), ("ne", False), ("isnan", False), ("abs", 1.0)])
def test_isfinite_that_takes_nan_for_a_number_fails(
    monkeypatch: pytest.MonkeyPatch, operation: str, says: Any, precision: str
) -> None:
    def say(call: FaultyCall, fault: KernelFault) -> Any:
        out, x = call.run(), call.args[0]
        return torch.where(x != x, says, out)

    monkeypatch.setitem(devices.CHANGES, "says", say)
    failing("predicates" if operation != "abs" else "max", precision, fault_of(operation, "says", precision))


@pytest.mark.parametrize("wrong", ["nan", "inf", "-inf"])
def test_a_loss_scaler_that_overlooks_one_kind_of_overflow_fails(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    def overlook(call: FaultyCall, fault: KernelFault) -> Any:
        gradients, found, _ = call.args
        kinds = {"nan": torch.isnan, "inf": torch.isposinf, "-inf": torch.isneginf}
        seen = any(bool(kinds[kind](t).any()) for kind in kinds if kind != wrong for t in gradients)
        call.run()
        found.fill_(float(seen))

    monkeypatch.setitem(devices.CHANGES, "overlooks", overlook)
    failing("unscale", "strict", fault_of("_amp_foreach_non_finite_check_and_unscale_", "overlooks", "strict"))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", sorted(passing.CALLS))
def test_a_clean_device_passes(name: str, precision: str) -> None:
    device = SimulatedDevice(BACKENDS["cpu"], None)
    case = next(c for c in cases("quick", "cpu") if c.id == f"exact/passes-{name}/contiguous/{precision}")
    assert Executor(device).run(case).status in (Status.PASS, Status.SKIP)
