"""What is a burst of rejections, what is none, and when it is over."""

from __future__ import annotations

import pytest

from yolo_stable.alerts.burst import RejectionBurst
from yolo_stable.guard import Decision, GuardVerdict

GOOD = Decision(verdict=GuardVerdict.BACKWARD)
BAD = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH)
STEP = Decision(verdict=GuardVerdict.APPLY)
CLIP = Decision(verdict=GuardVerdict.CLIP)
LOST = Decision(verdict=GuardVerdict.REJECT_WINDOW)
EMPTY = Decision(verdict=GuardVerdict.EMPTY)
BACK = Decision(verdict=GuardVerdict.ROLL_BACK)


def begun(decisions: list[Decision], max_consecutive: int = 20, max_share: float | None = 0.5) -> list[str]:
    burst = RejectionBurst(max_consecutive, max_share)
    return [words for decision in decisions if (words := burst.add(decision))]


@pytest.mark.parametrize(
    ("limit", "needed"), [(20, 10), (50, 25), (9, 4), (8, 4), (2, 4), (1, 4)], ids=lambda value: str(value)
)
def test_half_of_what_the_guard_endures_in_a_row(limit: int, needed: int) -> None:
    assert begun([BAD, EMPTY] * (needed - 1), limit, None) == []
    assert begun([BAD, EMPTY] * needed, limit, None) == [f"{needed} rejections in a row"]


def test_windows_that_are_lost_to_a_bad_gradient_count_alike() -> None:
    assert begun([GOOD, LOST] * 10) == ["10 rejections in a row"]


def test_a_loss_scale_that_looks_for_its_place_is_none() -> None:
    assert begun([GOOD, LOST] * 9 + [GOOD, STEP] * 200) == []


def test_one_now_and_then_is_none() -> None:
    assert begun([BAD, EMPTY, *[GOOD, STEP] * 9] * 50) == []


def test_every_second_window_lost_is_one_though_none_are_in_a_row() -> None:
    assert begun([GOOD, LOST, GOOD, STEP] * 100) == ["50 of the newest 100 windows lost"]
    assert begun([GOOD, LOST, GOOD, CLIP] * 100, max_share=None) == []


def test_a_window_that_was_applied_without_some_of_its_micro_batches_is_not_lost() -> None:
    assert begun([BAD, GOOD, GOOD, GOOD, STEP] * 300) == []


def test_it_is_told_once_until_it_has_calmed_down() -> None:
    bad, good = [BAD, EMPTY] * 10, [GOOD, STEP]
    assert len(begun([*bad * 5], max_share=None)) == 1
    assert len(begun([*bad, *good * 9, *bad], max_share=None)) == 1, "nine good steps are no calm"
    assert len(begun([*bad, *good * 10, *bad], max_share=None)) == 2
    assert len(begun([*bad, *(good * 9 + [BAD, GOOD, STEP]) * 3, *bad], max_share=None)) == 1


def test_a_rollback_is_neither() -> None:
    assert begun([BAD, EMPTY] * 9 + [BACK] + [BAD, EMPTY]) == ["10 rejections in a row"]
