"""The limits against what was measured: honest rounding passes, and the nearest fault that a gate is for does not."""

from __future__ import annotations

import math

import pytest

from yolo_stable.validate import Errors, Gate, Status
from yolo_stable.validate.checks import gates

PASS, WARN, FAIL = Status.PASS, Status.WARN, Status.FAIL
SINGLE, HALF, BRAIN = 2.0**-24, 2.0**-11, 2.0**-8
"""Unit roundoffs of float32, float16 and bfloat16."""


def errors(rms: float = 0.0, q: float = 0.0, maxrel: float = 0.0, nf: int = 0) -> Errors:
    return Errors(rms=rms, q=q, maxrel=maxrel, nf=nf)


STORIES: list[tuple[str, Gate, list[tuple[Status, Errors]]]] = [
    (
        "a product in float32, with Winograd, in TF32, with one wrong element",
        gates.LINEAR["strict"],
        [
            (PASS, errors(1e-6, 5)),
            (WARN, errors(2e-5, 5)),
            (WARN, errors(1e-6, 100)),
            (FAIL, errors(3e-4, 5)),
            (FAIL, errors(1e-6, 2000)),
        ],
    ),
    (
        "a product in TF32 as the user allows it, cut off, in bfloat16",
        gates.LINEAR["configured"],
        [(PASS, errors(3e-4, 1e4)), (PASS, errors(6e-4, 2e4)), (FAIL, errors(2.9e-3, 1e4)), (FAIL, errors(3e-4, 1e5))],
    ),
    (
        "a product in float16",
        gates.LINEAR["float16"],
        [(PASS, errors(1e-3, 4.3)), (FAIL, errors(1e-2, 4.3)), (FAIL, errors(1e-3, 100))],
    ),
    (
        "a product in bfloat16",
        gates.LINEAR["bfloat16"],
        [(PASS, errors(1.7e-3, 1)), (FAIL, errors(3e-2, 1)), (FAIL, errors(1.7e-3, 100))],
    ),
    (
        "a long sum in float32",
        gates.LINEAR_LONG["strict"],
        [(PASS, errors(5.2e-6, 5)), (WARN, errors(3e-5, 5)), (FAIL, errors(3e-4, 5)), (FAIL, errors(1e-6, 2000))],
    ),
    *(
        (
            f"a long sum in 1, 17, 33, 85, 111 and 257 parts of {name}",
            gates.LINEAR_LONG[name],
            [
                (PASS, errors(0.43 * unit, 1)),
                (PASS, errors(1.3 * unit, 1)),
                (WARN, errors(1.8 * unit, 1)),
                (WARN, errors(2.8 * unit, 1)),
                (FAIL, errors(3.2 * unit, 1)),
                (FAIL, errors(4.6 * unit, 1)),
                (FAIL, errors(0.43 * unit, 100)),
            ],
        )
        for name, unit in (("float16", HALF), ("bfloat16", BRAIN))
    ),
    (
        "a weight gradient of 64 images in bfloat16, added up in float32 and one after another",
        gates.LINEAR_IMAGES["bfloat16"],
        [
            (PASS, errors(0.43 * BRAIN, 1)),
            (PASS, errors(8.9e-3, 1)),
            (WARN, errors(4 * BRAIN, 1)),
            (FAIL, errors(7 * BRAIN, 1)),
        ],
    ),
    (
        "a product of two numbers in float16, which holds the smallest in few bits",
        gates.LINEAR_SINGLE["float16"],
        [(PASS, errors(3.3e-4, 45)), (FAIL, errors(1e-2, 45))],
    ),
    (
        "a normalisation, and one with another epsilon",
        gates.NORM["strict"],
        [(PASS, errors(1e-6, 20)), (FAIL, errors(4e-4, 20)), (FAIL, errors(1e-6, 2000))],
    ),
    ("a normalisation in float16", gates.NORM["float16"], [(PASS, errors(4e-4, 4)), (FAIL, errors(1e-2, 4))]),
    ("a normalisation in bfloat16", gates.NORM["bfloat16"], [(PASS, errors(3e-3, 4)), (FAIL, errors(4e-2, 4))]),
    (
        "one over 132,000 places",
        gates.NORM_WIDE["strict"],
        [(PASS, errors(2.4e-5, 1000)), (FAIL, errors(1e-3, 1000)), (FAIL, errors(2.4e-5, 1e5))],
    ),
    ("one far from zero", gates.NORM_OFFSET["strict"], [(PASS, errors(1e-5)), (FAIL, errors(1e-3))]),
    (
        "an activation",
        gates.ELEMENTWISE["strict"],
        [(PASS, errors(4e-7, 4)), (FAIL, errors(1e-5, 4)), (FAIL, errors(4e-7, 1000))],
    ),
    ("an activation in float16", gates.ELEMENTWISE["float16"], [(PASS, errors(3e-4, 4)), (FAIL, errors(5e-3, 4))]),
    (
        "an activation in bfloat16",
        gates.ELEMENTWISE["bfloat16"],
        [(PASS, errors(2e-3, 15)), (FAIL, errors(4e-2, 15)), (FAIL, errors(2e-3, 1000))],
    ),
    (
        "a loss",
        gates.LOSS["strict"],
        [(PASS, errors(3e-7, 180)), (FAIL, errors(1e-4, 180)), (FAIL, errors(3e-7, 10_000))],
    ),
    (
        "a sum",
        gates.REDUCTION["strict"],
        [(PASS, errors(1e-6, 4)), (FAIL, errors(1e-4, 4)), (FAIL, errors(1e-6, 1000))],
    ),
    (
        "a norm of a million",
        gates.NORM_LONG["strict"],
        [(PASS, errors(4e-6, 65)), (FAIL, errors(1e-3, 65)), (FAIL, errors(4e-6, 10_000))],
    ),
    (
        "an interpolation",
        gates.INTERPOLATION["strict"],
        [(PASS, errors(1.1e-6, 77)), (FAIL, errors(1e-4, 77)), (FAIL, errors(1.1e-6, 10_000))],
    ),
    (
        "attention, and in TF32",
        gates.ATTENTION["strict"],
        [(PASS, errors(3.8e-7, 4)), (FAIL, errors(3e-4, 4)), (FAIL, errors(3.8e-7, 1000))],
    ),
    (
        "attention in TF32 as allowed",
        gates.ATTENTION["configured"],
        [(PASS, errors(6e-4, 1e4)), (FAIL, errors(1e-2, 1e4))],
    ),
    ("attention in float16", gates.ATTENTION["float16"], [(PASS, errors(5e-4, 4)), (FAIL, errors(2e-2, 4))]),
    ("attention in bfloat16", gates.ATTENTION["bfloat16"], [(PASS, errors(4e-3, 4)), (FAIL, errors(5e-2, 4))]),
    (
        "attention with scores of 250",
        gates.ATTENTION_FAR["strict"],
        [(PASS, errors(1.5e-5, 3700)), (FAIL, errors(1e-3, 3700)), (FAIL, errors(1.5e-5, 1e6))],
    ),
    (
        "large shapes",
        gates.LARGE["strict"],
        [(PASS, errors(2.2e-5, 1445)), (FAIL, errors(1e-3, 1445)), (FAIL, errors(2.2e-5, 1e5))],
    ),
    (
        "what is special among numbers, and one of them lost",
        gates.SPECIAL["strict"],
        [(PASS, errors(2.5e-7, 4)), (FAIL, errors(1e-5, 4)), (FAIL, errors(2.5e-7, 1000)), (FAIL, errors(nf=1))],
    ),
    ("special numbers in float16", gates.SPECIAL["float16"], [(PASS, errors(2.9e-4, 4)), (FAIL, errors(5e-3, 4))]),
    ("special numbers in bfloat16", gates.SPECIAL["bfloat16"], [(PASS, errors(2.4e-3, 4)), (FAIL, errors(4e-2, 4))]),
    (
        "masked attention",
        gates.MASKS["strict"],
        [(PASS, errors(3e-7, 27)), (FAIL, errors(1e-4, 27)), (FAIL, errors(3e-7, 10_000))],
    ),
    ("masked attention in float16", gates.MASKS["float16"], [(PASS, errors(5e-4, 4)), (FAIL, errors(2e-2, 4))]),
    ("masked attention in bfloat16", gates.MASKS["bfloat16"], [(PASS, errors(3.8e-3, 4)), (FAIL, errors(1e-1, 4))]),
    (
        "a long positive sum in float16, and stalled",
        gates.LOW_SUMS["float16"],
        [(PASS, errors(3.1e-4)), (FAIL, errors(0.1))],
    ),
    ("the same in bfloat16", gates.LOW_SUMS["bfloat16"], [(PASS, errors(2.7e-3)), (FAIL, errors(0.1))]),
    (
        "a positive product in float16, rounded once and ten times",
        gates.ACCUMULATED["float16"],
        [(PASS, errors(2.5e-4, 1)), (FAIL, errors(2.5e-3, 1))],
    ),
    ("the same in bfloat16", gates.ACCUMULATED["bfloat16"], [(PASS, errors(2.0e-3, 1)), (FAIL, errors(2e-2, 1))]),
    (
        "an element of any size, by other roundings of exp, and flushed to zero",
        gates.COVER["strict"],
        [
            (PASS, errors(1e-7, 11)),
            (PASS, errors(1e-7, 100)),
            (FAIL, errors(1e-9, 1 / SINGLE)),
            (FAIL, errors(1e-7, 1000)),
        ],
    ),
    ("the same in float16", gates.COVER["float16"], [(PASS, errors(3e-4, 2.2)), (FAIL, errors(1e-6, 1 / HALF))]),
    ("the same in bfloat16", gates.COVER["bfloat16"], [(PASS, errors(4e-3, 2.4)), (FAIL, errors(1e-6, 1 / BRAIN))]),
    (
        "gradients of maps and rows, and one of its elements lost",
        gates.COVER_GRADIENTS["strict"],
        [(PASS, errors(1e-6, 223)), (FAIL, errors(1e-6, 1 / SINGLE / 9))],
    ),
    (
        "the same in float16",
        gates.COVER_GRADIENTS["float16"],
        [(PASS, errors(6e-4, 7.6)), (FAIL, errors(1e-4, 1 / HALF / 9))],
    ),
    (
        "the same in bfloat16, and a quarter off",
        gates.COVER_GRADIENTS["bfloat16"],
        [(PASS, errors(5e-3, 8.6)), (FAIL, errors(1e-3, 0.25 / BRAIN))],
    ),
    (
        "normalisations of nearly equal numbers, and without epsilon",
        gates.COVER_NORMS["strict"],
        [(PASS, errors(2e-5, 910)), (FAIL, errors(1e-5, 1e6))],
    ),
    (
        "a grid",
        gates.GRID_SAMPLE["strict"],
        [(PASS, errors(1.1e-6, 100)), (FAIL, errors(1e-4, 100)), (FAIL, errors(1e-6, 20_000))],
    ),
    ("a copy", gates.EXACT["exact"], [(PASS, errors()), (FAIL, errors(maxrel=1e-30))]),
    ("kinds of numbers", gates.CLASSES["exact"], [(PASS, errors(1.0, 1e6, 1.0)), (FAIL, errors(nf=1))]),
    ("pooling", gates.POOL["strict"], [(PASS, errors(1e-7, 2)), (FAIL, errors(1e-5, 2)), (FAIL, errors(1e-7, 1000))]),
    ("assignment", gates.ASSIGN["strict"], [(PASS, errors(3e-7)), (FAIL, errors(1e-3))]),
    ("assignment of tiny boxes", gates.ASSIGN_TINY["strict"], [(PASS, errors(3.2e-5)), (FAIL, errors(1e-2))]),
    ("50 steps", gates.OPTIMIZER["strict"], [(PASS, errors(maxrel=2.6e-6)), (FAIL, errors(maxrel=1e-3))]),
    ("a whole step", gates.STEP["strict"], [(PASS, errors(2.5e-5)), (FAIL, errors(7e-2))]),
    ("a whole step in TF32", gates.STEP["configured"], [(PASS, errors(7e-2)), (FAIL, errors(1.0))]),
    ("a scaler", gates.SCALER["exact"], [(PASS, errors()), (FAIL, errors(maxrel=1e-30))]),
]


@pytest.mark.parametrize(("gate", "stories"), [pytest.param(g, s, id=name) for name, g, s in STORIES])
def test_honest_rounding_passes_and_the_nearest_fault_does_not(
    gate: Gate, stories: list[tuple[Status, Errors]]
) -> None:
    assert [gate.judge(found)[0] for _, found in stories] == [status for status, _ in stories]
    assert {PASS, FAIL} <= {status for status, _ in stories}


def test_every_precision_of_every_class_of_operations_that_has_limits_has_a_story() -> None:
    told = {id(gate) for _, gate, _ in STORIES}
    groups = {name: group for name, group in vars(gates).items() if name.isupper() and isinstance(group, dict)}
    limited = {
        f"{name} {precision}": gate
        for name, group in groups.items()
        for precision, gate in group.items()
        if gate.limits().keys() - {"reason", "source"}
    }
    assert len(limited) > 25
    assert [name for name, gate in limited.items() if id(gate) not in told] == []


def test_limits_of_one_element_are_powers_of_two() -> None:
    """A change of one is a slip."""
    groups = [group for name, group in vars(gates).items() if name.isupper() and isinstance(group, dict)]
    limits = [limit for group in groups for gate in group.values() for limit in (gate.q, gate.q_fail) if limit]
    assert len(limits) > 25
    assert [limit for limit in limits if not math.log2(limit).is_integer()] == []


def test_forms_pass_with_what_was_measured_and_the_nearest_fault_does_not() -> None:
    found = [errors(2.1e-6, 62), errors(1e-4, 62), errors(2.1e-6, 10_000)]
    assert [gates.FORMS.judge(one)[0] for one in found] == [PASS, FAIL, FAIL]
    assert gates.FORMS.q is not None
    assert math.log2(gates.FORMS.q).is_integer()
