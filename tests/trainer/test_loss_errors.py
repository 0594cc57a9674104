"""A loss that raises on numbers that are not finite is a rejected batch; one that raises otherwise ends the run as ever."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.utils.tal import TaskAlignedAssigner

from benchmarks.saved_tensors import SavedTensors
from yolo_stable.incidents.replay import run as autopsy
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer.loss_errors import LossWatcher
from yolo_stable.trainer.trainers import TRAINERS

pytestmark = pytest.mark.usefixtures("without_epilogue")
Arguments = Callable[..., dict[str, Any]]


class Assigned:
    """Breaks the boxes that are assigned to predictions, when it is told to."""

    def __init__(self, own: Any) -> None:
        self.own, self.due, self.fired = own, False, 0

    def __get__(self, assigner: Any, owner: Any = None) -> Any:
        def get_targets(*args: Any) -> Any:
            labels, boxes, scores = self.own(assigner, *args)
            if self.due:
                self.fired += 1
                boxes = torch.full_like(boxes, float("nan"))
            return labels, boxes, scores

        return get_targets


@pytest.fixture
def assigned(monkeypatch: pytest.MonkeyPatch) -> Iterator[Assigned]:
    broken = Assigned(TaskAlignedAssigner.get_targets)
    monkeypatch.setattr(TaskAlignedAssigner, "get_targets", broken)
    yield broken
    assert broken.fired, "nothing was tested"


def breaking(task: str, assigned: Assigned, number: int, overrides: dict[str, Any]) -> Any:
    """A trainer in whose batch of this number, from 1, the assignment is broken, also when it is looked into."""
    base = TRAINERS[task]

    class Breaking(base):
        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            assigned.due = self.batch_number == number
            return super().preprocess_batch(batch)

    return Breaking(overrides=overrides)


@pytest.mark.parametrize("task", ["detect", "obb"])
def test_a_loss_that_raises_is_a_rejected_batch(task: str, assigned: Assigned, arguments: Arguments) -> None:
    trainer = breaking(task, assigned, 2, arguments(task, epochs=1, val=False, guard={"max_norm": 10.0}))
    trainer.add_callback("on_train_epoch_end", lambda _: setattr(assigned, "due", False))
    trainer.train()
    assert (trainer.guard.counts.applied, trainer.guard.counts.rejected_micro_batches) == (3, 1)
    events = list(read_events(trainer.save_dir / "guard.jsonl"))
    (rejected,) = [event for event in events if event["event"] == "rejection"]
    assert "the loss raised" in rejected["reason"]
    assert "out of bounds" in rejected["reason"]
    assert "is not finite" in rejected["reason"]
    (answer,) = [event for event in events if event["event"] == "incident"]
    assert (answer["reproduced"], answer["kind"]) == (True, "micro_batch")
    assert "loss" not in vars(trainer.model), "nothing of it stays on the model"
    assert all(bool(v.isfinite().all()) for v in trainer.model.state_dict().values())
    assigned.due = True  # as it would be on the machine that did it
    assert "the loss raised" in autopsy(Path(answer["folder"])) or "not finite" in autopsy(Path(answer["folder"]))


def test_another_error_ends_the_run_as_ever(arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(TaskAlignedAssigner, "get_targets", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        TRAINERS["detect"](overrides=arguments(epochs=1)).train()


@pytest.mark.parametrize("words", ["CUDA out of memory", "CUDA error: device-side assert triggered"])
def test_memory_and_a_lost_device_are_not_its_business(words: str) -> None:
    def lost() -> None:
        ruined = torch.tensor(float("nan"))
        raise RuntimeError(f"{words} {ruined}")

    with pytest.raises(RuntimeError) as caught:
        lost()
    assert watcher(torch.nn.Linear(1, 1)).raised(caught.value, torch.nn.Linear(1, 1)) is None


def watcher(model: torch.nn.Module) -> LossWatcher:
    trainer: Any = SimpleNamespace(model=model, guard=None, loss_names=("a",))
    return LossWatcher(trainer)


def test_predictions_that_the_loop_holds_are_given_back() -> None:
    """Of a compiled model the loop calls the loss by itself, and keeps the predictions until it has the next ones."""
    model = Raising()
    losses = watcher(model)
    losses.watch()
    with SavedTensors() as held:
        predictions = {"boxes": [model(torch.full((2, 1), float("nan"))).sigmoid()]}
        assert held.now > 0
        loss, items = model.loss({"cls": torch.zeros(2)}, predictions)
        assert bool(loss.isnan())
        assert list(items) == ["a"]
        assert held.now == 0
    assert "the loss raised" in losses.fault
    losses.watch()
    assert losses.fault == "", "that was the batch before"


class Raising(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(1, 1)

    def loss(self, batch: Any, predictions: Any) -> Any:
        index = predictions["boxes"][0].detach().long() - 9
        return batch["cls"][index]


def test_while_it_watches_a_copy_of_the_model_is_one_without_it() -> None:
    without = torch.nn.Linear(1, 1)
    watcher(without).watch()
    assert "loss" not in vars(without), "it has no loss of its own"
    model = Own()
    losses = watcher(model)
    losses.watch()
    assert "loss" in vars(model)
    for made in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert made.loss(3) == 6
    assert model.loss(2) == 4
    assert "loss" not in vars(model)
    losses.watch()
    losses.leave()
    assert "loss" not in vars(model)


class Own(torch.nn.Module):
    def loss(self, value: int) -> int:
        return 2 * value
