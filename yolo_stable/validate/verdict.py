"""The verdict of a validation in one sentence, and the rows of its table."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .._shared.numbers import count
from .gate import SEVERITY, Status
from .healing import Healing
from .result import CheckResult, ValidationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class TableRow:
    """One line of the table: a check that needs to be read, or all of a family that do not."""

    status: Status
    name: str
    computed_in: str
    rms: str
    q: str
    text: str
    heal: str = ""


def verdict(result: ValidationResult, healing: Healing | None = None) -> str:
    """Return in one sentence whether the device can be trained on, and what heals it."""
    counts, total = result.summary, sum(result.summary.values()) - result.summary["skip"]
    what = f"{result.device_name} ({result.device})" + (f", with the fault {result.inject}," if result.inject else "")
    took = f"{counts['warn']} with a warning, " if counts["warn"] else ""
    if result.status is not Status.FAIL:
        passed = f"{count(total, 'check')} passed, {took}{result.seconds:.0f} s"
        return f"PASS: {what} computes a YOLO training step correctly: {passed}."
    worst = result.failed()[0]
    found = f" {healing.summary[0].upper()}{healing.summary[1:]}" if healing and healing.summary else ""
    return (
        f"FAIL: {what} gets {counts['fail']} of {count(total, 'check')} wrong, first {worst.id}: {worst.reason}.{found}"
    )


def rows(result: ValidationResult, most: int = 40) -> list[TableRow]:
    """Return a row for each check that fails or warns, up to ``most``, and one for the others of each family."""
    read = [r for r in result.by_severity() if r.status in (Status.FAIL, Status.WARN)]
    found = [_row(check) for check in read[:most]]
    if len(read) > most:
        more = f"{len(read) - most} more fail or warn; --json and --html have them all"
        found.append(TableRow(status=read[most].status, name="...", computed_in="", rms="", q="", text=more))
    groups: dict[tuple[Status, str, str], list[CheckResult]] = {}
    for check in result.results:
        if check.status in (Status.PASS, Status.SKIP):
            why = check.reason if check.status is Status.SKIP else ""
            groups.setdefault((check.status, check.family, why), []).append(check)
    ordered = sorted(groups.items(), key=lambda item: SEVERITY.index(item[0][0]))
    return found + [_family(status, family, checks, why) for (status, family, why), checks in ordered]


def _row(check: CheckResult) -> TableRow:
    errors = check.errors
    return TableRow(
        status=check.status, name=check.id, computed_in=check.precision_class or "", text=check.reason,
        rms=number(errors.rms if errors else None), q=number(errors.q if errors else None), heal=check.heal or "",
    )  # fmt: skip


def _family(status: Status, family: str, checks: list[CheckResult], why: str) -> TableRow:
    classes = dict.fromkeys(c.precision_class for c in checks if c.precision_class)
    judged = [c for c in checks if c.errors is not None and c.gate.keys() & {"rms", "q", "maxrel", "exact"}]
    strict = [c for c in judged if c.precision in ("strict", "exact")] or judged
    errors = [c.errors for c in strict if c.errors is not None]
    return TableRow(
        status=status, name=f"{family}: {count(len(checks), 'check')}", computed_in=", ".join(classes), text=why,
        rms=_worst(e.rms for e in errors), q=_worst(e.q for e in errors),
    )  # fmt: skip


def _worst(values: Iterable[float | None]) -> str:
    return number(max((v for v in values if v is not None), default=None))


def number(value: Any) -> str:
    """Return a measured number as it is read; empty where there is none.

    Examples:
        >>> number(2.04e-7), number(float("nan")), number(64), number(None)
        ('2.0e-07', 'nan', '64', '')
    """
    if value is None:
        return ""
    return f"{value:.1e}" if isinstance(value, float) and math.isfinite(value) else str(value)
