from __future__ import annotations

import random

from yolo_stable.guard.decision import Decision, GuardVerdict
from yolo_stable.guard.recent import STRETCH, RecentWindows

GOOD, SPOILT = [GuardVerdict.BACKWARD, GuardVerdict.APPLY], [GuardVerdict.REJECT_MICRO_BATCH, GuardVerdict.EMPTY]


def told(recent: RecentWindows, *verdicts: GuardVerdict) -> tuple[int, int]:
    for verdict in verdicts:
        recent.add(Decision(verdict=verdict))
    return recent.windows, recent.lost


def test_windows_are_counted_and_those_without_any_good_micro_batch_are_lost() -> None:
    recent = RecentWindows()
    assert told(recent, *GOOD) == (1, 0)
    assert told(recent, GuardVerdict.BACKWARD, GuardVerdict.CLIP) == (2, 0)
    assert told(recent, *SPOILT) == (3, 1)
    assert told(recent, GuardVerdict.BACKWARD, GuardVerdict.REJECT_WINDOW) == (4, 2)
    assert told(recent, GuardVerdict.REJECT_MICRO_BATCH, GuardVerdict.BACKWARD, GuardVerdict.APPLY) == (5, 2), (
        "it has trained"
    )
    assert told(recent, GuardVerdict.EMPTY) == (5, 2), "nobody put anything into it"
    assert told(recent, *SPOILT, GuardVerdict.EMPTY) == (6, 3)


def test_what_is_long_ago_is_forgotten() -> None:
    recent = RecentWindows()
    for _ in range(STRETCH):
        told(recent, *SPOILT)
    assert (recent.windows, recent.lost) == (STRETCH, STRETCH)
    for _ in range(STRETCH - 1):
        told(recent, *GOOD)
    assert (recent.windows, recent.lost) == (2 * STRETCH - 1, STRETCH)
    assert told(recent, *GOOD) == (STRETCH, 0)


def test_the_share_is_that_of_the_stream() -> None:
    recent, dice = RecentWindows(), random.Random(1)
    for _ in range(5000):
        told(recent, *(SPOILT if dice.random() < 0.2 else GOOD))
        assert recent.windows < 2 * STRETCH
        assert recent.windows < STRETCH or abs(recent.lost / recent.windows - 0.2) < 0.06
