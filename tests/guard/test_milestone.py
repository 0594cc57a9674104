"""The state of the best validation: what each collapse on the way from it costs."""

from __future__ import annotations

from rig import Rig

from yolo_stable.guard.lr_backoff import REFILL, LearningRateBackoff
from yolo_stable.guard.milestone import Milestone

RAMP = 2


def collapse(milestone: Milestone, backoff: LearningRateBackoff) -> tuple[int, float]:
    """Collapse, go back, and train in calm until the budget is full; return what was used of it, and the backoff in the end."""
    milestone.collapsed(backoff)
    backoff.rolled_back()
    used = backoff.rollbacks
    for _ in range(REFILL * RAMP):
        backoff.applied()
    assert backoff.rollbacks == 0
    return used, backoff.factor


def test_each_collapse_from_the_same_state_counts_and_brakes_further_however_long_it_takes() -> None:
    rig, backoff = Rig(), LearningRateBackoff(RAMP)
    milestone = Milestone(rig.state)
    milestone.keep(5, 5, rig.state.live(), on_host=True)
    assert [collapse(milestone, backoff) for _ in range(4)] == [(1, 1.0), (2, 0.5), (3, 0.25), (4, 0.125)]


def test_a_better_state_is_a_new_beginning() -> None:
    rig, backoff = Rig(), LearningRateBackoff(RAMP)
    milestone = Milestone(rig.state)
    milestone.keep(5, 5, rig.state.live(), on_host=True)
    assert [collapse(milestone, backoff) for _ in range(2)] == [(1, 1.0), (2, 0.5)]
    milestone.keep(9, 8, rig.state.live(), on_host=True)
    assert collapse(milestone, backoff) == (1, 0.5), "the backoff stays where it is"
    assert milestone.snapshot is not None
    assert (milestone.snapshot.step, milestone.snapshot.trained) == (9, 8)


def test_forgotten_is_the_state_and_its_collapses() -> None:
    rig, backoff = Rig(), LearningRateBackoff(RAMP)
    milestone = Milestone(rig.state)
    milestone.keep(5, 5, rig.state.live(), on_host=True)
    collapse(milestone, backoff)
    milestone.forget()
    assert milestone.snapshot is None
    assert collapse(milestone, backoff) == (1, 1.0)
