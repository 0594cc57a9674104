from __future__ import annotations

import json
import math

import pytest

from yolo_stable.guard.baseline import BELIEVED, FIRST, SETTLED, Baseline


def baseline_of(*values: float, haste: float = 1.0) -> Baseline:
    baseline = Baseline("loss", 4.0, 3, haste=haste)
    for value in values:
        baseline.add(value)
    return baseline


@pytest.mark.parametrize(
    ("values", "expected"),
    [((6.0, 6.0, 6.0), 6.0), ((1000.0, 6.0, 5.0), 5.0), ((3.9, 203.0, 44.0), 3.9), ((5.0, 6.0, 1e14), 5.0)],
    ids=["alike", "high outlier", "exploded in the second step", "huge outlier"],
)
def test_the_first_baseline_is_the_lowest_of_the_first_values(values: tuple[float, ...], expected: float) -> None:
    assert math.exp(baseline_of(*values).value) == pytest.approx(expected)


def test_a_baseline_moves_by_ever_smaller_shares_and_faster_up_than_down() -> None:
    up, down = baseline_of(1.0, 1.0, 1.0, 2.0, 2.0, 2.0), baseline_of(1.0, 1.0, 1.0, 0.5, 0.5, 0.5)
    assert up.value == pytest.approx(math.log(2) * (1 - (1 - 2 / 4) * (1 - 2 / 5) * (1 - 2 / 6)))
    assert down.value == pytest.approx(math.log(0.5) * (1 - (1 - 1 / 8) * (1 - 1 / 10) * (1 - 1 / 12)))
    settled = baseline_of(*[1.0] * 1000, 2.0)
    assert settled.value == pytest.approx(math.log(2) / 32)


def test_a_baseline_of_two_values_in_turns_is_an_expectile() -> None:
    baseline = baseline_of(*[1.0, 2.0] * 2000)
    assert baseline.value == pytest.approx(0.8 * math.log(2), abs=0.01)


def test_a_baseline_with_haste_is_never_far_behind_what_grows_geometrically() -> None:
    for steps in (20, 60, 200):
        baseline = baseline_of(*(100 ** (i / steps) for i in range(steps + 1)), haste=2.0)
        assert math.log(100) - baseline.value < 1.1 * math.log(100) / 5


def test_high_values_do_not_move_the_baseline() -> None:
    baseline = baseline_of(*[6.0] * 50)
    before = baseline.value
    for value in (24.1, 100.0, 1e6, 1e12):
        baseline.add(value)
    assert (baseline.value, baseline.high) == (before, 4)


def test_a_streak_that_ends_moves_a_baseline_that_is_not_settled() -> None:
    baseline = baseline_of(6.0, 6.0, 6.0, 600.0, 6e5)
    assert math.exp(baseline.value) == pytest.approx(6.0)
    baseline.add(6.0)
    moved = math.log(4) * 2 * 2 / 5  # two values as if they had been 24, then one of 6
    assert baseline.value - math.log(6.0) == pytest.approx(moved - moved / 12)


def test_a_value_in_line_shortens_a_streak_and_leaves_a_settled_baseline_alone() -> None:
    baseline = baseline_of(*[6.0] * SETTLED, 600.0, 6e5, 600.0, 6.0)
    assert math.exp(baseline.value) == pytest.approx(6.0)
    assert baseline.high == 2
    baseline.add(6.0)
    baseline.add(6.0)
    baseline.add(6.0)
    assert baseline.high == 0
    assert not baseline.suspicious


def test_values_most_of_which_are_high_are_suspicious() -> None:
    baseline = baseline_of(*[6.0] * SETTLED)
    seen = [baseline.add(value) for value in (60.0, 60.0, 6.0, 60.0, 60.0)]
    assert [bool(reason) for reason in seen] == [False, False, False, False, True]


def test_what_is_believed_is_the_baseline_and_the_lowest_one_from_there_on() -> None:
    baseline = baseline_of(*[0.02] * 100, *[4.0] * 20)
    assert baseline.suspected
    baseline.believe()
    assert math.exp(baseline.value) == pytest.approx(4.0)
    assert baseline.lowest == baseline.value
    assert not baseline.suspicious
    assert baseline.add(5.0) == ""
    assert not baseline.suspicious
    crept = baseline_of(*(6.0 * 2 ** (i / 500) for i in range(1200)))
    assert crept.crept_only
    crept.believe()
    assert crept.lowest == crept.value
    assert not crept.suspicious


def test_far_is_what_no_data_can_do() -> None:
    from_silence_to_the_first_objects, exploded = (
        baseline_of(*[1e-6] * 100, *[90.0] * 50),
        baseline_of(*[1.0] * 100, *[1e9] * 3),
    )
    assert from_silence_to_the_first_objects.suspected
    assert not from_silence_to_the_first_objects.far
    assert exploded.far


def test_a_state_of_an_earlier_version_is_taken() -> None:
    baseline = baseline_of(*[6.0] * 80, 60.0)
    old = baseline.state_dict()
    del old["log_peak"]
    other = Baseline("loss", 4.0, 3)
    other.load_state_dict(old)
    assert other.state_dict() == {**baseline.state_dict(), "log_peak": 0.0}
    assert other.add(60.0) == baseline.add(60.0) == ""
    assert other.add(60.0) == baseline.add(60.0) != ""


def test_falling_is_in_line_and_moves_the_baseline_no_further_than_a_fall_by_the_limit() -> None:
    by_a_quarter, to_almost_nothing = baseline_of(*[6.0] * 100, 1.5), baseline_of(*[6.0] * 100, 6e-9)
    assert to_almost_nothing.value == pytest.approx(by_a_quarter.value)
    assert not to_almost_nothing.suspicious


def test_the_lowest_baseline_counts_from_when_it_is_settled() -> None:
    baseline = baseline_of(*[1.0] * FIRST, *[3.0] * (SETTLED - FIRST))
    assert baseline.lowest == baseline.value
    lowest = baseline.lowest
    baseline.add(3.0)
    assert baseline.lowest == lowest < baseline.value


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, 0.0, -1.0, 1e30, 1e-30, BELIEVED, 1e14, 1e-14])
def test_a_value_that_cannot_be_used_leaves_no_trace(value: float | None) -> None:
    baseline = baseline_of(6.0, 6.0, 6.0, 5.0, 60.0)
    before = baseline.state_dict()
    assert baseline.add(value) == ""
    assert baseline.state_dict() == before
    assert baseline.suspicious


def test_a_state_survives_json_at_any_time() -> None:
    values = [6.0, 5.0, 7.0, 6.5, 60.0, 70.0, 80.0, 5.0]
    whole = Baseline("loss", 4.0, 3)
    reasons = [whole.add(value) for value in values]
    for cut in range(len(values)):
        first, second = baseline_of(*values[:cut]), Baseline("loss", 4.0, 3)
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
    baseline = baseline_of(6.0, 6.0, 6.0, 5.0)
    before = baseline.state_dict()
    with pytest.raises(ValueError, match=message):
        baseline.load_state_dict({**Baseline("loss", 4.0, 3).state_dict(), **change})
    assert baseline.state_dict() == before
