"""A view of a trainer: reads it at the moment it is asked, and cannot write it."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_stable.checkpoints.trainer_view import TrainerView


class Trainer:
    """Begins with nothing."""

    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


def test_it_reads_what_is_there_now() -> None:
    trainer: Any = Trainer(epoch=0)
    view = TrainerView(trainer)
    assert view.epoch == 0
    trainer.epoch, trainer.ema = 5, "average"
    assert (view.epoch, view.ema) == (5, "average")


def test_what_the_trainer_does_not_have_yet_is_missing() -> None:
    view = TrainerView(Trainer())
    with pytest.raises(AttributeError, match="'Trainer' object has no attribute 'validator'"):
        _ = view.validator
    assert getattr(view, "data", None) is None


@pytest.mark.parametrize("name", ["epoch", "guard", "something_new", "_trainer"])
def test_nothing_of_it_is_written(name: str) -> None:
    trainer = Trainer(epoch=3, guard=None)
    view = TrainerView(trainer)
    with pytest.raises(AttributeError) as refused:
        setattr(view, name, 4)
    assert str(refused.value) == f"a service reads its trainer; {name} is written by GuardedTrainerMixin alone"
    assert vars(trainer) == {"epoch": 3, "guard": None}
    assert view.epoch == 3


def test_what_is_private_to_the_trainer_is_not_read() -> None:
    view = TrainerView(Trainer(_gate="scaler"))
    with pytest.raises(AttributeError, match="a service does not read _gate of its trainer"):
        _ = view._gate  # type: ignore[attr-defined]
    assert not hasattr(view, "__dict__"), "who has that can write"
    with pytest.raises(TypeError):
        vars(view)


def test_its_name_is_that_of_the_class() -> None:
    assert TrainerView(Trainer()).name == "Trainer"
    assert TrainerView(Trainer(name="run")).name == "Trainer", "and not what Ultralytics calls the run"


class TestWarmUp:
    @staticmethod
    def at(epoch: int, batch: int, last: int, most: int = 1000) -> bool:
        """Ask at a batch (from 1) of an epoch (from 0) of four batches, when the loop warms up to a batch of the run."""
        asked = []
        trainer = SimpleNamespace(
            train_loader=range(4),
            epoch=epoch,
            batch_number=batch,
            _get_warmup_iterations=lambda batches: asked.append(batches) or last,
        )
        warm = TrainerView(trainer).is_warming_up(most)
        assert asked == [4]
        return warm

    @pytest.mark.parametrize(
        ("epoch", "batch", "warm"),
        [(0, 1, True), (0, 4, True), (1, 1, True), (1, 2, True), (1, 3, False), (2, 1, False)],
    )
    def test_it_lasts_as_long_as_the_loop_says(self, epoch: int, batch: int, warm: bool) -> None:
        """The loop compares the number of the batch from 0 with it, the last one included."""
        assert self.at(epoch, batch, last=5) is warm

    def test_without_one_there_is_none(self) -> None:
        assert not self.at(0, 1, last=-1)
        assert not self.at(0, 1, last=0)

    def test_that_of_a_large_data_set_is_cut_short(self) -> None:
        assert self.at(0, 3, last=10_000, most=2)
        assert not self.at(0, 4, last=10_000, most=2)


def test_a_copy_looks_at_the_copied_trainer() -> None:
    """Ultralytics hands callbacks to the workers of a multi-GPU run, and with them what they close over."""
    trainer = SimpleNamespace(epoch=1)
    trainer.view = TrainerView(trainer)
    for copied in (copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))):
        copied.epoch = 7
        assert (copied.view.epoch, trainer.view.epoch) == (7, 1)
