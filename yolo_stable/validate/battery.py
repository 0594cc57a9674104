"""The battery: all checks, and the cases that each tier runs."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from ..errors import InvalidCallError, nearest
from .check import FAMILIES, TIERS, Check, CheckCase
from .checks import determinism

_GROUPS = (
    "env", "transfer", "exact", "passing", "special", "places", "elementwise", "ranges", "forms", "large", "cover", "linear",
    "products", "norm", "attention", "assign", "optimizer", "lists", "determinism", "shadow", "step", "short",
)  # fmt: skip
"""Files of ``checks/``."""
_CHECKS = [check for group in _GROUPS for check in import_module(f".checks.{group}", __package__).CHECKS]
BATTERY: tuple[Check, ...] = tuple(sorted(_CHECKS, key=lambda check: FAMILIES.index(check.family)))
"""In the order in which they run."""
_FINDABLE = BATTERY + determinism.STRESS


def cases(tier: str, backend: str) -> tuple[CheckCase, ...]:
    """Return the cases that a tier runs on a backend, in their order.

    Raises:
        InvalidCallError: There is no such tier.
    """
    if tier not in TIERS:
        raise InvalidCallError(f"There is no tier {tier!r}. Must be one of {', '.join(TIERS)}.{nearest(tier, TIERS)}")
    checks = [check for check in BATTERY if not check.backends or backend in check.backends]
    return tuple(case for check in checks for case in check.cases(tier))


def stress_cases(tier: str) -> tuple[CheckCase, ...]:
    """Return the cases that ``--stress`` repeats."""
    return tuple(case for check in determinism.STRESS for case in check.cases(tier))


def find_check(check_id: str) -> Check:
    """Return the check of an id that exists."""
    return next(check for check in _FINDABLE if check.id == check_id)


def find_case(case_id: str) -> CheckCase:
    """Return the case of an id.

    Raises:
        InvalidCallError: There is none.
    """
    found = _by_id()
    if case_id not in found:
        raise InvalidCallError(f"There is no check {case_id!r}.{nearest(case_id, found)}")
    return found[case_id]


@cache
def _by_id() -> dict[str, CheckCase]:
    return {case.id: case for check in _FINDABLE for case in check.cases("full")}
