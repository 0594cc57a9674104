"""Comparing two states on the same batches: what is the data, what is a divergence."""

from __future__ import annotations

import math

import pytest

from yolo_stable.guard.inquiry import LONGEST, Answer, Inquiry
from yolo_stable.guard.witness import BatchMeasurement

SCRATCH = [(2.0, 0.4), (14.0, 1.2), (13.0, 2.8), (14.0, 0.4), (12.0, 3.9), (13.0, 4.9), (14.0, 1.5), (12.0, 15.0)]
"""As measured in a training from scratch: loss now, and before the first step, when no object is found in most batches."""


def ask(inquiry: Inquiry, pairs: list[tuple[float, float]], norms: tuple[float, float] = (1.0, 1.0)) -> list[str]:
    """Return the answers up to the one that decides."""
    answers = []
    for now, then in pairs:
        answers.append(inquiry.add(now=BatchMeasurement(now, norms[0]), then=BatchMeasurement(then, norms[1])))
        if answers[-1] is not Answer.OPEN:
            break
    return [answer.value for answer in answers]


def test_hard_data_are_cleared_by_the_first_batch() -> None:
    assert ask(Inquiry(2.0, batches=16), [(55.0, 60.0)]) == ["honest"]


def test_a_state_that_is_far_worse_on_all_batches_has_diverged() -> None:
    pairs = [(40.0, 4.0), (22.0, 2.1), (31.0, 3.0), (50.0, 5.0)]
    assert ask(Inquiry(2.0, batches=4), pairs) == ["open"] * 3 + ["worse"]


def test_a_state_that_is_a_little_worse_has_not() -> None:
    assert ask(Inquiry(2.0, batches=4), [(4.4, 4.0)] * 4) == ["open"] * 3 + ["honest"]


def test_an_older_state_that_finds_nothing_in_most_batches_is_no_better() -> None:
    assert sum(now for now, _ in SCRATCH) > 2 * sum(then for _, then in SCRATCH)
    assert ask(Inquiry(2.0, batches=16), SCRATCH) == ["open"] * 7 + ["honest"]


def test_an_older_state_that_finds_less_than_one_object_is_measured_by_what_it_finds() -> None:
    """As measured where a training from scratch, sorted by the number of objects, begins to find them."""
    pairs = [(33.7, 2.36, 0.0324), (40.9, 9.14, 0.149), (26.6, 1.53, 0.0222), (8.0, 0.32, 0.0)]
    for now, then, found in pairs[:3]:
        inquiry = Inquiry(10.0, batches=8)
        assert inquiry.add(now=BatchMeasurement(now), then=BatchMeasurement(then, found=found)) is Answer.HONEST
    silent = Inquiry(10.0, batches=8)
    answers = [
        silent.add(now=BatchMeasurement(8.0), then=BatchMeasurement(0.32, found=0.0)) for _ in range(8 * LONGEST)
    ]
    assert answers == [Answer.OPEN] * (8 * LONGEST - 1) + [Answer.HONEST], "who has shown nothing is not asked for ever"
    exploded = Inquiry(10.0, batches=2)
    answers = [
        exploded.add(now=BatchMeasurement(4e4, found=f), then=BatchMeasurement(4.0, found=0.8)) for f in (1.0, 0.0)
    ]
    assert answers[-1] is Answer.WORSE, "it is not asked what the state of now finds"


def test_what_explodes_and_is_dead_then_has_diverged_though_its_loss_is_low() -> None:
    exploded = [(306.0, 4.5), (85.0, 4.1), (0.0, 4.4), (424.0, 4.7), (0.0, 4.0), (0.0, 4.2), (7.6e-6, 4.9), (0.0, 4.1)]
    assert ask(Inquiry(10.0, batches=8), exploded)[-1] == "worse"


def test_what_spikes_and_recovers_has_not() -> None:
    spike = [(306.0, 4.5), (85.0, 4.1), (20.0, 4.4), (6.0, 4.7), (4.1, 4.0), (4.0, 4.2), (3.9, 4.9), (3.8, 4.1)]
    assert ask(Inquiry(10.0, batches=8), spike)[-1] == "honest"


def test_memorising_is_honest() -> None:
    assert ask(Inquiry(10.0, batches=8), [(0.0, 0.7)]) == ["honest"]


@pytest.mark.parametrize(
    ("norms", "losses", "answer"),
    [
        ((500.0, 5.0), (3.0, 3.0), "worse"),
        ((500.0, 5.0), (3.0, 6.0), "honest"),
        ((10.0, 5.0), (3.0, 3.0), "honest"),
        ((5.0, 5.0), (3.0, 3.0), "honest"),
    ],
    ids=["grown", "grown, while the loss falls", "not by much", "not grown"],
)
def test_norms_are_compared_when_asked_for(
    norms: tuple[float, float], losses: tuple[float, float], answer: str
) -> None:
    inquiry = Inquiry(2.0, 3.0, batches=3)
    assert ask(inquiry, [losses] * 3, norms)[-1] == answer
    if answer == "worse":
        assert "the largest gradient norm is 500 now and 5 under a copy" in inquiry.figures("a copy")
    assert ask(Inquiry(2.0, batches=3), [losses] * 3, norms)[-1] == "honest", "nobody has asked for them"


def test_a_loss_that_is_not_finite_is_as_large_as_can_be() -> None:
    assert ask(Inquiry(2.0, batches=2), [(math.nan, 4.0), (math.inf, 4.0)]) == ["open", "worse"]


def test_an_older_state_that_is_not_finite_teaches_nothing_and_is_not_asked_for_ever() -> None:
    assert ask(Inquiry(2.0, batches=2), [(9.0, math.nan), (4.0, 4.0)]) == ["open", "honest"]
    answers = ask(Inquiry(2.0, batches=2), [(9.0, math.inf)] * 100)
    assert answers == ["open"] * (2 * LONGEST - 1) + ["honest"]
