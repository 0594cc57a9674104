"""Limits: numbers from which rules speak; ``rules.yaml`` has the defaults."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import InvalidCallError, nearest
from .layout import WHERE
from .rules import RULES

LIMITS: Mapping[str, float] = {key: rule.limit for key, rule in RULES.items() if rule.limit is not None}
"""The default of each rule that has a limit."""


def limits_with(wanted: Mapping[str, float]) -> dict[str, float]:
    """Return the limits of all rules, the wanted ones in place of the defaults.

    Raises:
        InvalidCallError: A rule has no limit, or a value is no number of 0 or more.

    Examples:
        >>> limits_with({"box-large": 0.5})["box-large"]
        0.5
    """
    for rule, value in wanted.items():
        if rule not in LIMITS:
            raise InvalidCallError(
                f"{WHERE}: limit {rule} is not known.{nearest(rule, LIMITS)} Limits have: {', '.join(sorted(LIMITS))}."
            )
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise InvalidCallError(
                f"{WHERE}: limit {rule}={value} is not allowed. Give a number of 0 or more ({RULES[rule].unit};"
                f" default {LIMITS[rule]:g})."
            )
    return {**LIMITS, **wanted}


def parse_limits(words: Iterable[str]) -> dict[str, float]:
    """Return the limits that were typed as ``RULE=VALUE``.

    Raises:
        InvalidCallError: A word is not of this form, or :func:`limits_with` refuses it.

    Examples:
        >>> parse_limits(["box-large=0.9"])
        {'box-large': 0.9}
    """
    limits: dict[str, float] = {}
    for word in words:
        rule, _, value = word.partition("=")
        try:
            limits[rule.strip()] = float(value)
        except ValueError as error:
            raise InvalidCallError(
                f"{WHERE}: --limit {word} is not RULE=VALUE with a number. Example: --limit box-large=0.9"
            ) from error
    limits_with(limits)
    return limits
