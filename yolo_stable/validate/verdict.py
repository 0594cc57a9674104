"""The verdict of a validation in one sentence, and its checks in the rows that a person reads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from .gate import SEVERITY, Status
from .healing import Healing
from .result import CheckResult, ValidationResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the table: a check that needs to be read, or all of a family that do not."""

    status: Status
    name: str
    computed_in: str
    rms: str
    q: str
    text: str
    heal: str = ""


def verdict(result: ValidationResult, healing: Healing | None = None) -> str:
    """Return in one sentence whether the device can be trained on.

    Args:
        result: Of a validation.
        healing: What the search for healing settings came to, if there was one.
    """
    count, total = result.summary, sum(result.summary.values()) - result.summary["skip"]
    what = f"{result.device_name} ({result.device})" + (f", with the fault {result.inject}," if result.inject else "")
    took = f"{count['warn']} with a warning, " if count["warn"] else ""
    if result.status is not Status.FAIL:
        return f"PASS: {what} computes a YOLO training step rightly: {_checks(total)} passed, {took}{result.seconds:.0f} s."
    worst = result.failed()[0]
    found = f" {healing.summary[0].upper()}{healing.summary[1:]}" if healing and healing.summary else ""
    return f"FAIL: {what} gets {count['fail']} of {_checks(total)} wrong, first {worst.id}: {worst.reason}.{found}"


def rows(result: ValidationResult, most: int = 40) -> list[Row]:
    """Return the rows of the table, the most severe first.

    Args:
        result: Of a validation.
        most: Rows of checks that fail or warn; of more, the number is given.

    Returns:
        A row for each check that fails or warns, and one for each family's checks that pass or are skipped.
    """
    read = [r for r in result.by_severity() if r.status in (Status.FAIL, Status.WARN)]
    found = [_row(check) for check in read[:most]]
    if len(read) > most:
        more = f"{len(read) - most} more fail or warn; --json and --html have them all"
        found.append(Row(status=read[most].status, name="...", computed_in="", rms="", q="", text=more))
    groups: dict[tuple[Status, str, str], list[CheckResult]] = {}
    for check in result.results:
        if check.status in (Status.PASS, Status.SKIP):
            why = check.reason if check.status is Status.SKIP else ""
            groups.setdefault((check.status, check.family, why), []).append(check)
    ordered = sorted(groups.items(), key=lambda item: SEVERITY.index(item[0][0]))
    return found + [_family(status, family, checks, why) for (status, family, why), checks in ordered]


def _row(check: CheckResult) -> Row:
    errors = check.errors
    return Row(
        status=check.status, name=check.id, computed_in=check.precision_class or "", text=check.reason,
        rms=_number(errors.rms if errors else None), q=_number(errors.q if errors else None), heal=check.heal or "",
    )  # fmt: skip


def _family(status: Status, family: str, checks: list[CheckResult], why: str) -> Row:
    classes = dict.fromkeys(c.precision_class for c in checks if c.precision_class)
    judged = [c for c in checks if c.errors is not None and c.gate.keys() & {"rms", "q", "maxrel", "exact"}]
    seen = [c.errors for c in judged if c.errors is not None]
    strict = [c.errors for c in judged if c.errors is not None and c.precision in ("strict", "exact")] or seen
    return Row(
        status=status, name=f"{family}: {_checks(len(checks))}", computed_in=", ".join(classes), text=why,
        rms=_worst(e.rms for e in strict), q=_worst(e.q for e in strict),
    )  # fmt: skip


def _worst(values: Iterable[float | None]) -> str:
    known = [v for v in values if v is not None]
    return _number(max(known)) if known else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.1e}" if math.isfinite(value) else str(value)


def _checks(count: int) -> str:
    return f"{count} check{'' if count == 1 else 's'}"
