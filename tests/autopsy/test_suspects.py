from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pytest

from yolo_stable.autopsy.suspects import MOST_GUILTY, bisect, healing, search


class Court:
    """Knows who is guilty, and counts how often it is asked."""

    def __init__(self, breaks: Callable[[set[int]], bool | None]) -> None:
        self.breaks, self.asked = breaks, 0

    def __call__(self, part: Sequence[int]) -> bool | None:
        assert part, "nobody is asked about nobody"
        self.asked += 1
        return self.breaks(set(part))


def innocent() -> bool:
    return False


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16, 31, 64])
def test_one_culprit_is_found_wherever_it_is_in_logarithmic_time(count: int) -> None:
    for culprit in range(count):
        court = Court(lambda part, culprit=culprit: culprit in part)
        finding = bisect(court, range(count))
        assert finding.guilty == (culprit,)
        assert finding.alone
        assert finding.exact
        assert court.asked <= math.ceil(math.log2(count)) + 2


@pytest.mark.parametrize("count", [2, 7, 16])
@pytest.mark.parametrize("answer", [True, False, None])
def test_it_ends_whatever_it_is_told(count: int, answer: bool | None) -> None:
    court = Court(lambda part: answer)
    bisect(court, range(count))
    assert court.asked <= math.ceil(math.log2(count)) + 2


def test_two_that_break_it_only_together_are_not_told_apart() -> None:
    finding = bisect(Court(lambda part: {1, 6} <= part), range(8))
    assert finding.guilty == tuple(range(8))
    assert not finding.alone


def test_a_good_guess_saves_the_search() -> None:
    court = Court(lambda part: 5 in part)
    finding = search(court, range(16), guess=(5,), neutral=innocent)
    assert (finding.guilty, finding.exact, court.asked) == ((5,), True, 2)


def test_a_bad_guess_does_no_harm() -> None:
    finding = search(Court(lambda part: 5 in part), range(16), guess=(4,), neutral=innocent)
    assert (finding.guilty, finding.exact) == ((5,), True)


def test_several_culprits_are_all_found() -> None:
    finding = search(Court(lambda part: bool({2, 6, 7} & part)), range(8), neutral=innocent)
    assert sorted(finding.guilty) == [2, 6, 7]
    assert finding.rest_is_healthy
    assert not finding.every


def test_what_breaks_with_anything_has_no_culprit() -> None:
    court = Court(lambda part: True)
    assert search(court, range(8), neutral=lambda: True).every
    assert court.asked == 0


@pytest.mark.parametrize("count", [2, 3, 8, 64])
def test_when_each_breaks_it_alone_none_is_to_blame(count: int) -> None:
    court = Court(lambda part: True)
    assert search(court, range(count), neutral=innocent).every
    assert court.asked <= MOST_GUILTY * (math.ceil(math.log2(count)) + 2) + 3


def test_a_single_sample_is_guilty_without_any_question() -> None:
    court = Court(lambda part: True)
    finding = search(court, [0], neutral=innocent)
    assert (finding.guilty, finding.every, court.asked) == ((0,), False, 0)


@pytest.mark.parametrize("count", [1, 2, 4, 8, 9])
def test_the_part_that_heals_is_found(count: int) -> None:
    for guilty in range(count):
        court = Court(lambda gone, guilty=guilty: guilty not in gone)
        assert healing(court, range(count)) == guilty
        assert court.asked <= math.ceil(math.log2(count)) + 1


@pytest.mark.parametrize("answer", [True, None])
def test_no_part_is_named_when_none_heals(answer: bool | None) -> None:
    assert healing(Court(lambda gone: answer), range(4)) is None


def test_who_was_seen_is_only_asked_whether_it_breaks_alone() -> None:
    court = Court(lambda part: 5 in part)
    finding = search(court, range(16), guess=(5,), sure=True, neutral=innocent)
    assert (finding.guilty, finding.alone, court.asked) == ((5,), True, 1)
