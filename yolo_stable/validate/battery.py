"""All checks, and which of them a tier runs."""

from __future__ import annotations

from functools import cache

from ..errors import InvalidCallError, nearest
from .check import FAMILIES, TIERS, Case, Check
from .checks import (
    assign,
    attention,
    cover,
    determinism,
    elementwise,
    env,
    exact,
    forms,
    large,
    linear,
    lists,
    norm,
    optimizer,
    passing,
    places,
    products,
    ranges,
    shadow,
    short,
    special,
    step,
    transfer,
)

_GROUPS = (
    env,
    transfer,
    exact,
    passing,
    special,
    places,
    elementwise,
    ranges,
    forms,
    large,
    cover,
    linear,
    products,
    norm,
    attention,
    assign,
    optimizer,
    lists,
    determinism,
    shadow,
    step,
    short,
)
BATTERY: tuple[Check, ...] = tuple(
    sorted((check for group in _GROUPS for check in group.CHECKS), key=lambda check: FAMILIES.index(check.family))
)
"""In the order in which they run."""
_FINDABLE = BATTERY + determinism.STRESS


def cases(tier: str, backend: str) -> tuple[Case, ...]:
    """Return what is run on a backend.

    Args:
        tier: ``quick``, ``default`` or ``full``.
        backend: Its name; checks for other backends are left out.

    Returns:
        The cases in their order.

    Raises:
        InvalidCallError: There is no such tier.
    """
    if tier not in TIERS:
        raise InvalidCallError(f"There is no tier {tier!r}. Must be one of {', '.join(TIERS)}.{nearest(tier, TIERS)}")
    checks = [check for check in BATTERY if not check.backends or backend in check.backends]
    return tuple(case for check in checks for case in check.cases(tier))


def stress_cases(tier: str) -> tuple[Case, ...]:
    """Return what ``--stress`` repeats."""
    return tuple(case for check in determinism.STRESS for case in check.cases(tier))


def find_check(check_id: str) -> Check:
    """Return the check of an id, which must be there."""
    return next(check for check in _FINDABLE if check.id == check_id)


def find_case(case_id: str) -> Case:
    """Return the case of an id.

    Raises:
        InvalidCallError: There is none; names the nearest.
    """
    found = _by_id()
    if case_id not in found:
        raise InvalidCallError(f"There is no check {case_id!r}.{nearest(case_id, found)}")
    return found[case_id]


@cache
def _by_id() -> dict[str, Case]:
    return {case.id: case for check in _FINDABLE for case in check.cases("full")}
