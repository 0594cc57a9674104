from __future__ import annotations

import random

from yolo_stable.report.curve import BUCKETS, MOST_UNDONE, Curve
from yolo_stable.report.log_histogram import LogHistogram


def drawn(curve: Curve) -> list[tuple[float, float]]:
    return [(x, y) for x, y in curve.points() if y is not None]


def test_a_short_curve_is_kept_as_it_is() -> None:
    curve = Curve()
    for x in range(10, 110, 10):
        curve.add(x, x / 10)
    assert curve.points() == [(x, x / 10) for x in range(10, 110, 10)]
    assert curve.last == 10.0


def test_a_long_curve_keeps_every_peak_and_its_place() -> None:
    noise, curve = random.Random(1), Curve()
    peaks = {step: 50.0 + i for i, step in enumerate((3, 12_345, 77_777, 99_999))}
    for step in range(100_000):
        curve.add(step, peaks.get(step, noise.uniform(1, 2)))
    points = drawn(curve)
    assert BUCKETS / 2 < len(points) <= 2 * BUCKETS
    assert [(x, y) for x, y in points if y > 2] == list(peaks.items())
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    assert curve.last is not None


def test_numbers_that_are_not_finite_break_the_line() -> None:
    curve = Curve()
    for step, value in enumerate((1.0, 2.0, float("nan"), float("inf"), 3.0)):
        curve.add(step, value)
    assert curve.points() == [(0, 1.0), (1, 2.0), (4, None), (4, 3.0)]


def test_a_line_that_is_broken_everywhere_stays_within_bounds() -> None:
    curve = Curve()
    for step in range(20_000):
        curve.add(step, float("nan") if step % 2 else 1.0)
    assert len(curve.points()) <= 3 * BUCKETS


def test_steps_that_were_undone_leave_the_line_and_branch_off_from_where_it_ends() -> None:
    curve = Curve()
    for step in (10, 20, 30, 40):
        curve.add(step, step * 1.0)
    curve.cut(20)
    curve.add(50, 50.0)
    assert curve.points() == [(10, 10.0), (20, 20.0), (50, None), (50, 50.0)]
    assert curve.undone == [(20, 20.0), (30, 30.0), (40, 40.0), (40, None)]


def test_steps_that_are_done_again_do_not_go_back_and_forth() -> None:
    curve = Curve()
    for step in (10, 20, 30):
        curve.add(step, 1.0)
    curve.cut(10, broken=False)
    for step in (20, 30):
        curve.add(step, 2.0)
    assert curve.points() == [(10, 1.0), (20, 2.0), (30, 2.0)]


def test_cutting_all_of_it_or_nothing_is_possible() -> None:
    curve = Curve()
    curve.cut(5)
    curve.add(10, 1.0)
    curve.cut(10)
    assert curve.undone == []
    curve.cut(0)
    assert (curve.points(), curve.undone, curve.last) == ([], [(10, 1.0), (10, None)], None)


def test_a_run_that_goes_back_for_ever_takes_no_memory_for_it() -> None:
    curve = Curve()
    for step in range(20_000):
        curve.add(step, 1.0)
        if step % 4 == 3:
            curve.cut(step - 2)
    assert len(curve.undone) <= MOST_UNDONE
    assert len(curve.points()) <= 3 * BUCKETS


def test_quantiles_are_right_to_half_a_percent_whatever_the_range() -> None:
    levels, numbers = LogHistogram(), [10.0 ** (i / 1000) for i in range(-6000, 6000)]
    for value in [*numbers, float("nan"), float("inf"), -1.0]:
        levels.add(value)
    for share in (0.05, 0.5, 0.95):
        found = levels.quantile(share)
        assert found is not None
        assert abs(found / numbers[round(share * len(numbers))] - 1) < 0.01
    assert levels.most == max(numbers)
