from __future__ import annotations

import json
import math

import pytest

from yolo_stable.guard.level import BELIEVED, FIRST, SETTLED, Level


def level_of(*values: float, haste: float = 1.0) -> Level:
    level = Level("loss", 4.0, 3, haste=haste)
    for value in values:
        level.add(value)
    return level


@pytest.mark.parametrize(
    ("values", "expected"),
    [((6.0, 6.0, 6.0), 6.0), ((1000.0, 6.0, 5.0), 5.0), ((3.9, 203.0, 44.0), 3.9), ((5.0, 6.0, 1e14), 5.0)],
    ids=["alike", "high outlier", "exploded in the second step", "huge outlier"],
)
def test_the_first_level_is_the_lowest_of_the_first_values(values: tuple[float, ...], expected: float) -> None:
    assert math.exp(level_of(*values).level) == pytest.approx(expected)


def test_a_level_moves_by_ever_smaller_shares_and_faster_up_than_down() -> None:
    up, down = level_of(1.0, 1.0, 1.0, 2.0, 2.0, 2.0), level_of(1.0, 1.0, 1.0, 0.5, 0.5, 0.5)
    assert up.level == pytest.approx(math.log(2) * (1 - (1 - 2 / 4) * (1 - 2 / 5) * (1 - 2 / 6)))
    assert down.level == pytest.approx(math.log(0.5) * (1 - (1 - 1 / 8) * (1 - 1 / 10) * (1 - 1 / 12)))
    settled = level_of(*[1.0] * 1000, 2.0)
    assert settled.level == pytest.approx(math.log(2) / 32)


def test_a_level_of_two_values_in_turns_is_an_expectile() -> None:
    level = level_of(*[1.0, 2.0] * 2000)
    assert level.level == pytest.approx(0.8 * math.log(2), abs=0.01)


def test_a_level_with_haste_is_never_far_behind_what_grows_geometrically() -> None:
    for steps in (20, 60, 200):
        level = level_of(*(100 ** (i / steps) for i in range(steps + 1)), haste=2.0)
        assert math.log(100) - level.level < 1.1 * math.log(100) / 5


def test_high_values_do_not_move_the_level() -> None:
    level = level_of(*[6.0] * 50)
    before = level.level
    for value in (24.1, 100.0, 1e6, 1e12):
        level.add(value)
    assert (level.level, level.high) == (before, 4)


def test_a_streak_that_ends_moves_a_level_that_is_not_settled() -> None:
    level = level_of(6.0, 6.0, 6.0, 600.0, 6e5)
    assert math.exp(level.level) == pytest.approx(6.0)
    level.add(6.0)
    moved = math.log(4) * 2 * 2 / 5  # two values as if they had been 24, then one of 6
    assert level.level - math.log(6.0) == pytest.approx(moved - moved / 12)


def test_a_value_in_line_shortens_a_streak_and_leaves_a_settled_level_alone() -> None:
    level = level_of(*[6.0] * SETTLED, 600.0, 6e5, 600.0, 6.0)
    assert math.exp(level.level) == pytest.approx(6.0)
    assert level.high == 2
    level.add(6.0)
    level.add(6.0)
    level.add(6.0)
    assert level.high == 0
    assert not level.suspicious


def test_values_most_of_which_are_high_are_suspicious() -> None:
    level = level_of(*[6.0] * SETTLED)
    seen = [level.add(value) for value in (60.0, 60.0, 6.0, 60.0, 60.0)]
    assert [bool(reason) for reason in seen] == [False, False, False, False, True]


def test_what_is_believed_is_the_level_and_the_lowest_one_from_there_on() -> None:
    level = level_of(*[0.02] * 100, *[4.0] * 20)
    assert level.suspected
    level.believe()
    assert math.exp(level.level) == pytest.approx(4.0)
    assert level.lowest == level.level
    assert not level.suspicious
    assert level.add(5.0) == ""
    assert not level.suspicious
    crept = level_of(*(6.0 * 2 ** (i / 500) for i in range(1200)))
    assert crept.crept_only
    crept.believe()
    assert crept.lowest == crept.level
    assert not crept.suspicious


def test_far_is_what_no_data_can_do() -> None:
    from_silence_to_the_first_objects, exploded = (
        level_of(*[1e-6] * 100, *[90.0] * 50),
        level_of(*[1.0] * 100, *[1e9] * 3),
    )
    assert from_silence_to_the_first_objects.suspected
    assert not from_silence_to_the_first_objects.far
    assert exploded.far


def test_a_state_of_an_earlier_version_is_taken() -> None:
    level = level_of(*[6.0] * 80, 60.0)
    old = level.state_dict()
    del old["log_peak"]
    other = Level("loss", 4.0, 3)
    other.load_state_dict(old)
    assert other.state_dict() == {**level.state_dict(), "log_peak": 0.0}
    assert other.add(60.0) == level.add(60.0) == ""
    assert other.add(60.0) == level.add(60.0) != ""


def test_falling_is_in_line_and_moves_the_level_no_further_than_a_fall_by_the_limit() -> None:
    by_a_quarter, to_almost_nothing = level_of(*[6.0] * 100, 1.5), level_of(*[6.0] * 100, 6e-9)
    assert to_almost_nothing.level == pytest.approx(by_a_quarter.level)
    assert not to_almost_nothing.suspicious


def test_the_lowest_level_counts_from_when_it_is_settled() -> None:
    level = level_of(*[1.0] * FIRST, *[3.0] * (SETTLED - FIRST))
    assert level.lowest == level.level
    lowest = level.lowest
    level.add(3.0)
    assert level.lowest == lowest < level.level


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.0, -1.0, 1e30, 1e-30, BELIEVED, 1e14, 1e-14])
def test_a_value_that_cannot_be_used_leaves_no_trace(value: float | None) -> None:
    level = level_of(6.0, 6.0, 6.0, 5.0, 60.0)
    before = level.state_dict()
    assert level.add(value) == ""
    assert level.state_dict() == before
    assert level.suspicious


def test_a_state_survives_json_at_any_time() -> None:
    values = [6.0, 5.0, 7.0, 6.5, 60.0, 70.0, 80.0, 5.0]
    whole = Level("loss", 4.0, 3)
    reasons = [whole.add(value) for value in values]
    for cut in range(len(values)):
        first, second = level_of(*values[:cut]), Level("loss", 4.0, 3)
        second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
        assert [second.add(value) for value in values[cut:]] == reasons[cut:]
        assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"log_level": math.nan}, "log_level of the loss must be .* not nan"),
        ({"log_lowest": None}, "log_lowest of the loss must be .* not None"),
        ({"log_level": 1000.0}, "log_level of the loss must be .* not 1000.0"),
        ({"count": 2}, "log_first_0 of the loss must be .* not None"),
        ({"high": -1}, "high of the loss must be a whole number from 0 on, not -1"),
        ({"count": 2.5}, "count of the loss must be a whole number from 0 on, not 2.5"),
        ({"wrong": 1}, "missing or unknown in the state of the loss: wrong"),
    ],
    ids=str,
)
def test_a_broken_state_is_refused_whole(change: dict[str, float | None], message: str) -> None:
    level = level_of(6.0, 6.0, 6.0, 5.0)
    before = level.state_dict()
    with pytest.raises(ValueError, match=message):
        level.load_state_dict({**Level("loss", 4.0, 3).state_dict(), **change})
    assert level.state_dict() == before
