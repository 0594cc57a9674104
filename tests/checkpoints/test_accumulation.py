"""The loop's steps after a resume fall where they would have fallen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from yolo_stable.checkpoints.accumulation import Cadence


def loop(trainer: Any, cadence: Cadence, epochs: range, accumulate: Any) -> list[int]:
    """Take the steps as Ultralytics' loop does; ``accumulate(ni)`` is its warm-up, None where it is over."""
    last, steps = -1, []
    batches = len(trainer.train_loader)
    for trainer.epoch in epochs:
        for i in range(batches):
            ni = i + batches * trainer.epoch
            if accumulate(ni) is not None:
                trainer.accumulate = accumulate(ni)
            trainer.batch_number = i + 1
            held = cadence.before_forward(trainer)
            trainer.accumulate = trainer.accumulate if held is None else held
            if ni - last >= trainer.accumulate:
                cadence.stepped(trainer)
                last = ni
                steps.append(ni)
    return steps


@pytest.mark.parametrize("batches", [1, 3, 4, 7])
@pytest.mark.parametrize("nominal", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("warm_up", [0, 6, 40])
def test_they_fall_where_they_would_have_fallen(batches: int, nominal: int, warm_up: int) -> None:
    def accumulate(ni: int) -> int | None:
        return max(1, round(1 + (nominal - 1) * ni / warm_up)) if warm_up and ni <= warm_up else None

    trainer: Any = SimpleNamespace(train_loader=[None] * batches, accumulate=nominal, epoch=0)
    straight = loop(trainer, Cadence(), range(9), accumulate)
    for stop in range(1, 9):
        trainer.accumulate = nominal
        first = Cadence()
        before = loop(trainer, first, range(stop), accumulate)
        resumed: Any = SimpleNamespace(train_loader=[None] * batches, accumulate=nominal, epoch=stop)
        again = Cadence()
        again.continue_from(first.last_step)
        after = loop(resumed, again, range(stop, 9), accumulate)
        assert before + after == straight
        if after:
            assert again.nominal(resumed) == resumed.accumulate, "nothing is held back any more"
        assert again.last_step == (straight[-1] if straight else -1)


def test_a_loop_that_has_begun_anew_is_left_alone() -> None:
    trainer: Any = SimpleNamespace(train_loader=[None] * 3, accumulate=2, epoch=1, batch_number=1)
    cadence = Cadence()
    cadence.continue_from(2)
    cadence.began()
    assert (cadence.before_forward(trainer), cadence.last_step) == (None, -1)
