"""Limits of rules: what is typed, what is refused, and that each is described."""

from __future__ import annotations

import math

import pytest

from yolo_stable.check import RULES
from yolo_stable.check.limits import LIMITS, limits_with, parse_limits
from yolo_stable.errors import InvalidCallError


def test_what_is_typed_takes_the_place_of_the_default() -> None:
    limits = limits_with(parse_limits(["box-large=0.9", "image-crowded = inf"]))
    assert (limits["box-large"], limits["image-crowded"]) == (0.9, math.inf)
    assert limits["box-aspect"] == LIMITS["box-aspect"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("box-large", "not RULE=VALUE"),
        ("box-large=much", "not RULE=VALUE"),
        ("box-lrge=1", "Did you mean 'box-large'"),
        ("image-empty=1", "is not known"),
        ("box-large=nan", "not allowed"),
        ("box-large=-1", "not allowed"),
    ],
)
def test_anything_else_is_refused(word: str, said: str) -> None:
    with pytest.raises(InvalidCallError, match=said):
        parse_limits([word])


def test_each_limit_says_what_it_counts() -> None:
    assert {key for key, rule in RULES.items() if rule.unit} == set(LIMITS)
