"""`validate`: the whole battery on one device. Needs no torch itself: a process of its own touches the device."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ..errors import InvalidCallError
from .battery import cases, find_case
from .check import Case
from .gate import Status
from .pool import Pool
from .result import CheckResult, ValidationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a validation is; handed to a callback before and after each case."""

    done: int
    total: int
    id: str
    result: CheckResult | None
    """None before it is run."""


def validate(
    device: str | None = None,
    tier: str = "default",
    seed: int = 0,
    inject: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    stress_minutes: float = 0.0,
    *,
    recompute_reference: bool = False,
    settings: Mapping[str, Any] | None = None,
    families: tuple[str, ...] = (),
    seconds: float | None = None,
) -> ValidationResult:
    """Compare what a device computes with float64 on the CPU, operation by operation.

    Args:
        device: ``cuda``, ``rocm``, ``mps``, ``xpu``, ``cpu``, with an index as in ``cuda:1``; None: the best that is there.
        tier: ``quick``, ``default`` or ``full``.
        seed: Another one gives other inputs; only those of seed 0 have a shipped reference.
        inject: A fault to put in, to prove the validator; one of ``faults.NAMES``.
        progress: Called before and after each case.
        stress_minutes: So long are the linear checks repeated afterwards, and compared bit for bit with themselves.
        recompute_reference: Compute the reference of trainings here instead of taking the shipped one.
        settings: ``{"env": {...}, "flags": {...}}`` for the process that touches the device, as ``Setting`` has them.
        families: Run these families only; empty: all.
        seconds: Time limit of each case; None: its own.

    Returns:
        All results; ``result.status`` is the verdict.

    Raises:
        InvalidCallError: The device is not there, or there is no such tier or fault.
    """
    cases(tier, "cpu")  # a wrong tier is told before a process is started
    if inject:
        from .faults import find_fault

        find_fault(inject.partition("@")[0])
    begin, started = time.perf_counter(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    results: list[CheckResult] = []
    say = progress or (lambda _: None)
    with Pool(
        device, seed=seed, inject=inject, settings=settings, recompute_reference=recompute_reference, seconds=seconds
    ) as pool:
        hello = pool.hello
        planned = [
            case
            for case in cases(tier, hello["backend"])
            if (case.precision != "configured" or hello["reduced"]) and (not families or case.check.family in families)
        ]
        for done, case in enumerate(planned):
            say(Progress(done=done, total=len(planned), id=case.id, result=None))
            results.append(pool.run(case))
            say(Progress(done=done + 1, total=len(planned), id=case.id, result=results[-1]))
        if stress_minutes > 0:
            results.append(_stress(pool, [c for c in planned if c.check.family == "linear"], stress_minutes))
    return ValidationResult(
        backend=hello["backend"],
        device=hello["device"],
        device_name=hello["device_name"],
        tier=tier,
        seed=seed,
        environment=hello["environment"],
        results=tuple(results),
        inject=inject,
        golden=hello["golden"],
        started=started,
        seconds=round(time.perf_counter() - begin, 3),
    )


def run_one(
    check_id: str,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    inject: str | None = None,
    seconds: float | None = None,
) -> CheckResult:
    """Run one case in a process of its own, under other settings: what the search for a healing one needs.

    Args:
        check_id: ``CheckResult.id``.
        device: As for ``validate``.
        settings: ``{"env": {...}, "flags": {...}}``; variables are set before torch is imported, an empty one is unset.
        seed: As for ``validate``.
        inject: As for ``validate``.
        seconds: Time limit; None: that of the check.

    Returns:
        The verdict; a process that dies or hangs is a failure.

    Raises:
        InvalidCallError: There is no such check or device.
    """
    case = find_case(check_id)
    with Pool(device, seed=seed, inject=inject, settings=settings, seconds=seconds) as pool:
        return pool.run(case)


def _stress(pool: Pool, planned: list[Case], minutes: float) -> CheckResult:
    """Repeat cases until the time is over; any bit that changes in a deterministic operation speaks of silent corruption."""
    if not planned:
        raise InvalidCallError("--stress repeats the linear checks, and none of them is run here.")
    first: dict[str, tuple[str, ...]] = {}
    changed: list[str] = []
    rounds, end = 0, time.monotonic() + 60 * minutes
    while time.monotonic() < end and not changed:
        for case in planned:
            result = pool.run(case)
            digest = tuple(part.sha256 for part in result.parts)
            if result.determinism.get("poison") == "bitwise" and first.setdefault(case.id, digest) != digest:
                changed.append(case.id)
        rounds += 1
    base = pool.run(planned[0])
    what = (
        f"{', '.join(changed)}: other bits than in the first round; suspect memory, heat or power, and run dcgmi, rvs"
    )
    return replace(
        base,
        id="determinism/stress", check="determinism/stress", family="determinism", operation="stress", parts=(), params={},
        status=Status.FAIL if changed else Status.PASS, reason=f"{what} or memtest" if changed else "",
        notes=(f"{rounds} rounds of {len(planned)} cases in {minutes:g} minutes",), errors=None, gate={}, numbers={},
        determinism={}, reference=(), precision_class=None,
    )  # fmt: skip
