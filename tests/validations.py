"""Results of validations for tests: made up with known numbers, or measured in this process on a slice of the battery."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from yolo_stable.validate import CheckResult, Errors, Gate, Part, Status, ValidationResult
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.simulated import machine_for

GATE = Gate(rms=5e-6, rms_fail=5e-5, q=64, q_fail=1024, reason="an example", source="none").limits()
CONV = "linear/conv3x3-64/contiguous/strict"


def part(size: float = 1.0, **changes: Any) -> Part:
    """Return a tensor whose sketch and norm are ``size``."""
    made = Part(
        name="out", shape=(4,), sha256="a" * 64, nan=0, inf=0, l2=size, absmax=1.0, mean=0.0, sketch=(size,) * 16,
        sample=("0x1p+0",), errors=Errors(rms=1e-7, q=2.0, maxrel=1e-6, nf=0),
    )  # fmt: skip
    return replace(made, **changes)


def check(name: str = CONV, **changes: Any) -> CheckResult:
    """Return a check that passes."""
    family, what, layout, precision = name.split("/")
    made = CheckResult(
        id=name, check=f"{family}/{what}", family=family, operation="conv2d", params={}, layout=layout, precision=precision,
        dtype="float32", mode="configured" if precision == "configured" else "strict", status=Status.PASS,
        precision_class="ieee-fp32", errors=Errors(rms=1e-7, q=2.0, maxrel=1e-6, nf=0), gate=GATE,
        determinism={"poison": "bitwise"}, input_sha256="1" * 64, reference=(1.0,) * 16, parts=(part(),),
    )  # fmt: skip
    return replace(made, **changes)


def failing(name: str = CONV, reason: str = "out: rms 1.0e-02 is over 5.0e-05", **changes: Any) -> CheckResult:
    """Return a check that fails."""
    errors = Errors(rms=1e-2, q=1e6, maxrel=0.5, nf=0)
    return check(
        name, **{"status": Status.FAIL, "reason": reason, "errors": errors, "precision_class": "broken", **changes}
    )


def validation(*checks: CheckResult, **changes: Any) -> ValidationResult:
    """Return the result of a validation of a card that does not exist."""
    environment = {
        "torch": "2.9",
        "hip": "7.0",
        "driver": "amdgpu 6.1",
        "switches": {"cudnn.enabled": True},
        "variables": {},
    }
    made = ValidationResult(
        backend="rocm", device="cuda:0", device_name="Radeon of 2031", tier="quick", seed=0, environment=environment,
        results=checks or (check(),), started="2031-01-02T03:04:05+00:00", seconds=41.0,
    )  # fmt: skip
    return replace(made, **changes)


def measured(ids: Iterable[str], inject: str | None = None, seed: int = 0) -> ValidationResult:
    """Return what this CPU computes in this process, with a fault or without."""
    machine = machine_for("cpu", inject)
    executor = Executor(machine, seed)
    results = tuple(executor.run(find_case(name)) for name in ids)
    return ValidationResult(
        backend="cpu", device="cpu", device_name=machine.name, tier="quick", seed=seed, inject=inject,
        environment=machine.environment(), results=results,
    )  # fmt: skip


def slice_of_battery(monkeypatch: Any, *ids: str) -> None:
    """Let validations run a few cases only; the process that touches the device is a real one."""
    import sys

    whole: Callable[..., Any] = sys.modules["yolo_stable.validate.battery"].cases  # type: ignore[attr-defined]

    def cases(tier: str, backend: str) -> tuple[Any, ...]:
        whole(tier, backend)  # refuses a tier that there is not
        return tuple(find_case(name) for name in ids)

    monkeypatch.setattr(sys.modules["yolo_stable.validate.run"], "cases", cases)
