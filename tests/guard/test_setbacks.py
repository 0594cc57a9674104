from __future__ import annotations

import math

import pytest

from yolo_stable.guard.damage import StateDamage
from yolo_stable.guard.setbacks import AT_ONCE, Setbacks


def at(*index: int, name: str = "model/a") -> list[StateDamage]:
    return [StateDamage(name=name, index=index, value=math.nan, before=0.0, bad=1, elements=9)]


def test_without_a_step_forward_each_counts_wherever_it_is() -> None:
    setbacks = Setbacks(16, 64)
    for i in range(5):
        assert setbacks.before(at(i), 40) == i
        setbacks.add(at(i), 40)
    setbacks.kept()
    assert setbacks.before(at(9), 41) == 0


def test_the_same_number_counts_also_when_steps_were_kept_in_between_unless_it_was_seldom() -> None:
    setbacks, step = Setbacks(16, 64), 40
    for i in range(5):
        assert setbacks.before(at(1), step) == i
        setbacks.add(at(1), step)
        setbacks.kept()
        step += AT_ONCE
    assert setbacks.before(at(2), step) == 0, "another place"
    assert setbacks.before(at(1, name="model/b"), step) == 0, "another tensor"
    assert setbacks.before([*at(2), *at(1)], step) == 5, "the worst of several"
    assert setbacks.before(at(1), step + 1) == 0, "not at once"
    setbacks.add(at(1), step + 1)
    setbacks.kept()
    assert setbacks.before(at(1), step + 2) == 1, "it begins anew"


def test_a_place_is_known_for_a_while() -> None:
    setbacks = Setbacks(16, 64)
    assert not setbacks.knows(at(1), 0)
    setbacks.add(at(1), 40)
    assert setbacks.knows(at(1), 104)
    assert not setbacks.knows(at(1), 105)
    assert not setbacks.knows(at(2), 40)
    for step in range(200, 3000, 7):
        setbacks.add(at(step), step)
    assert len(setbacks._ruined) < 20, "memory does not grow"


def test_in_another_precision_all_counts_anew() -> None:
    setbacks = Setbacks(16, 64)
    for _ in range(3):
        setbacks.add(at(1), 40)
    setbacks.forget()
    assert setbacks.before(at(1), 40) == 0
    assert setbacks.knows(at(1), 40)


@pytest.mark.parametrize(("gap", "pace"), [(1, 1), (7, 1), (8, 2), (20, 5), (50, 12), (64, 16), (1000, 16)])
def test_snapshots_follow_each_other_faster_after_setbacks_that_come_often(gap: int, pace: int) -> None:
    setbacks = Setbacks(16, 64)
    setbacks.add([], gap)
    assert setbacks.pace == pace
    for _ in range(20):
        setbacks.kept()
    assert setbacks.pace == 16


def test_rejections_are_the_batches_doing_until_steps_led_there_again() -> None:
    setbacks = Setbacks(16, 64)
    assert not setbacks.led_astray(100), "who knows"
    assert not setbacks.led_astray(100), "no step was taken: it cannot have been training"
    assert setbacks.led_astray(110)
    assert not setbacks.led_astray(175), "long ago"
