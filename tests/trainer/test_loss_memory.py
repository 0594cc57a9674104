"""A loss with a running mean in a guarded trainer: a bad batch leaves nothing in it, and when it is ruined it is named."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss

from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer.trainers import TRAINERS

pytestmark = pytest.mark.usefixtures("without_epilogue")
Arguments = Callable[..., dict[str, Any]]


class MeanLoss(v8DetectionLoss):
    """Weighs by the running mean of its box loss, as Wise-IoU does."""

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.mean, self.calls = 1.0, 0

    def __call__(self, preds: Any, batch: dict[str, Any]) -> Any:
        loss, items = super().__call__(preds, batch)
        weight = 1.0 / (0.5 + self.mean / 10)
        if torch.is_grad_enabled():
            self.calls += 1
            self.mean = 0.9 * self.mean + 0.1 * float(items["box_loss"])
        return loss * weight, {key: value * weight for key, value in items.items()}


class MeanModel(DetectionModel):
    def init_criterion(self) -> MeanLoss:
        return MeanLoss(self)


def trainer_of(overrides: dict[str, Any], bad: int = 0) -> Any:
    """Return a trainer with such a loss; the pixels of its batch of this number, from 1, are NaN."""

    class Trainer(TRAINERS["detect"]):
        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            model = MeanModel(cfg, nc=self.data["nc"], ch=self.data["channels"], verbose=False)
            if weights:
                model.load(weights)
            return model

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            if self.batch_number == bad:
                batch["img"][0] = math.nan
            return batch

    return Trainer(overrides=overrides)


def test_a_bad_batch_leaves_nothing_in_the_mean_and_its_replays_do_not_either(arguments: Arguments) -> None:
    trainer = trainer_of(arguments(epochs=1, val=False), bad=2)
    trainer.train()
    counts = trainer.guard.counts
    assert (counts.rejected_micro_batches, counts.applied) == (1, counts.micro_batches - 1)
    assert trainer.model.criterion.calls == counts.applied
    assert math.isfinite(trainer.model.criterion.mean)
    (answer,) = [e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == "incident"]
    assert answer["cause"] == "data"


def test_the_first_snapshot_of_a_resumed_run_has_the_mean(arguments: Arguments) -> None:
    """It comes back last, when the first snapshot has long been taken; a rollback must not lead to a mean that begins anew."""
    first = trainer_of(arguments(epochs=2, val=False))
    kept: list[int] = []

    def stop(trainer: Any) -> None:
        if trainer.epoch == 1:
            raise KeyboardInterrupt

    first.add_callback("on_train_epoch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    calls = first.model.criterion.calls
    assert calls == 4
    again = trainer_of(arguments(model=str(first.last), resume=True))

    def ruin(trainer: Any) -> None:
        if trainer.batch_number == 1:
            assert trainer.model.criterion.calls == calls + 1
            with torch.no_grad():
                next(trainer.model.parameters()).fill_(math.nan)
        elif not kept:
            kept.append(trainer.model.criterion.calls)

    again.add_callback("on_train_batch_end", ruin)
    again.train()
    assert again.guard.counts.rollbacks == 1
    assert kept == [calls], "the second batch was rejected, and the first one undone with it"


def test_a_mean_that_was_ruined_is_named_and_comes_back_with_a_snapshot(arguments: Arguments) -> None:
    """Ruined as by a flipped bit while a healthy batch is computed, so that no batch is to blame."""
    settings = {"max_consecutive": 1, "snapshot_every": 100}
    trainer = trainer_of(arguments(epochs=2, val=False, guard=settings))

    def ruin(trainer: Any) -> None:
        if trainer.epoch == 0 and trainer.batch_number == 2:
            trainer.model.criterion.mean = math.nan

    trainer.add_callback("on_train_batch_end", ruin)
    trainer.train()
    answers = [e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == "incident"]
    assert answers[0]["cause"] == "weights"
    assert "the loss's `mean` was not finite" in str(answers[0])
    assert trainer.guard.counts.rollbacks == 1
    assert math.isfinite(trainer.model.criterion.mean)
    assert trainer.guard.counts.rejected_micro_batches == 2
