"""One honest training told twice: by stock's trainer and by the guarded one, with the same seed, and what differed."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import ultralytics.engine.trainer as loop
from torch import Tensor, nn
from ultralytics import YOLO
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.utils import LOGGER

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard.escalation import EscalationLevel
from yolo_stable.presets.lr_schedule import schedule_warnings
from yolo_stable.presets.ultralytics_settings import default_hyp
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer.trainers import TRAINERS

from .oddity_habits import Stopped, at_epoch, pull_the_plug
from .oddity_networks import HEADS, small_network
from .oddity_stories import BESIDE, COMMON, Story

STOCK: dict[str, type] = {
    "detect": DetectionTrainer,
    "segment": SegmentationTrainer,
    "pose": PoseTrainer,
    "obb": OBBTrainer,
    "classify": ClassificationTrainer,
    "rtdetr": RTDETRTrainer,
}
FALSE = (
    "rejected", "rolled back", "repaired", "lowered", "halted", "ended early", "left out", "checkpoints refused", "warnings",
)  # fmt: skip
"""What must not happen to an honest training; counted in each row."""
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Told:
    """A training that has come to its end, whichever it was."""

    trainer: Any
    error: str
    """Why it did not end well; empty when it did."""
    halted: bool
    warned: list[str]


class Warnings(logging.Handler):
    """Keeps what Ultralytics' logger is given to say."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.said.append(record.getMessage())


@contextmanager
def listening() -> Iterator[list[str]]:
    """Take the logger's place on the terminal, and give what it says."""
    handlers, level = LOGGER.handlers[:], LOGGER.level
    ear = Warnings()
    LOGGER.handlers[:] = [ear]
    LOGGER.setLevel(logging.WARNING)
    try:
        yield ear.said
    finally:
        LOGGER.handlers[:] = handlers
        LOGGER.setLevel(level)


class Stage:
    """Where a story plays: its data and networks, drawn once.

    Args:
        story: What is told.
        folder: Is filled.
    """

    def __init__(self, story: Story, folder: Path) -> None:
        self.story, self.folder = story, folder
        self.data = story.data(folder / "data")
        beside = story.beside(folder / BESIDE) if story.beside is not None else self.data
        network = small_network(folder, story.network) if story.network in HEADS else story.network
        self.settings: Row = {**COMMON, "model": str(network), "data": str(self.data), "project": str(folder)}
        if story.first is not None:
            first = STOCK[story.task](overrides={**self.settings, **story.first, "data": str(beside), "name": "first"})
            first.train()
            self.settings["distill_model" if story.teacher else "model"] = str(first.best)
        self.settings |= story.settings

    def tell(self, name: str, guard: Row | None, story: Story | None = None) -> Told:
        """Train.

        Args:
            name: Of the run's folder.
            guard: The guard's settings; None: by stock.
            story: Another than the stage's.
        """
        story = story or self.story
        kind = STOCK[story.task] if guard is None else TRAINERS[story.task]
        kind = story.subclass(kind) if story.subclass is not None else kind
        settings: Row = {**self.settings, "name": name} | (
            {} if guard is None else {"guard": {**guard, "report": False}}
        )
        trainer: Any = None
        error, halted, clock = "", False, loop.time
        with listening() as warned:
            try:
                if story.twice:
                    model = YOLO(settings.pop("model"))
                    for number in (1, 2):
                        model.train(trainer=kind, **{**settings, "name": f"{name}-{number}"})
                    trainer = model.trainer
                else:
                    trainer = self._built(story, kind, settings, name)
                    trainer.train()
            except Exception as end:  # noqa: BLE001 - whatever ends an honest training is what is measured
                error, halted = f"{type(end).__name__}: {end}".splitlines()[0], isinstance(end, TrainingHaltedError)
            finally:
                loop.time = clock
        return Told(trainer=trainer, error=error, halted=halted, warned=warned)

    def _built(self, story: Story, kind: type, settings: Row, name: str) -> Any:
        """Return the trainer that ends the story, after those that come before it have trained."""
        last = self.folder / name / "weights" / "last.pt"
        if story.unplugged_at is not None:
            trainer = (STOCK[story.task] if story.resumes_stock else kind)(overrides=_plain(settings, story))
            at_epoch(story.unplugged_at, pull_the_plug)(trainer)
            try:
                trainer.train()
            except Stopped:
                settings = {**settings, "model": str(last), "resume": str(last)}
        trainer = kind(overrides=settings)
        if story.habit is not None:
            story.habit(trainer)
        return trainer


def _plain(settings: Row, story: Story) -> Row:
    """Return the arguments of the run that is unplugged; stock knows no guard."""
    return {key: value for key, value in settings.items() if key != "guard" or not story.resumes_stock}


def compare(story: Story, folder: Path, guards: Mapping[str, Row]) -> list[Row]:
    """Tell a story by stock, and by the guarded trainer with each of some settings.

    Args:
        story: The story.
        folder: An empty one.
        guards: Settings of the guard by name.

    Returns:
        A row for each name: a number for each of :data:`FALSE`, ``unequal`` (what of the guarded run is not stock's bit for
        bit), ``broken`` (why the row says nothing), the optimizer steps, and ``notes``: what the guard said.
    """
    stage = Stage(story, folder)
    # A guarded run is resumed from its exact state, so that it is held against one that nobody has interrupted.
    stock = stage.tell("stock", None, story if story.resumes_stock else replace(story, unplugged_at=None))
    if stock.error:
        return [{"step": step, "broken": f"stock: {stock.error}"} for step in guards]
    return [
        {"step": step, **held_against(stock, stage.tell(step, guard), story.tells)} for step, guard in guards.items()
    ]


def held_against(stock: Told, guarded: Told, tells: tuple[str, ...] = ()) -> Row:
    """Return the row of a guarded run, in which ``tells`` are parts of warnings that are rightly given."""
    run = guarded.trainer
    if run is None or run.guard is None:
        return {"broken": f"guarded: {guarded.error}"}
    events = list(read_events(run.save_dir / "guard.jsonl"))
    escalations = Counter(event["rung"] for event in events if event["event"] == "climb")
    advice = schedule_warnings(vars(run.args), len(run.train_loader), default_hyp())
    warned = [line for line in guarded.warned if line not in stock.warned and line not in advice]
    warned = [line for line in warned if not any(part in line for part in tells)]
    counts = run.guard.counts
    found = (
        counts.rejected,
        escalations[EscalationLevel.ROLL_BACK.value],
        escalations[EscalationLevel.REPAIR.value],
        escalations[EscalationLevel.LOWER_PRECISION.value],
        int(guarded.halted),
        int(run.epoch < stock.trainer.epoch),
        sum(event["event"] == "left_out" for event in events),
        sum(event["event"] == "checkpoint_kept" for event in events),
        len(warned),
    )
    return {
        **dict(zip(FALSE, found, strict=True)),
        "unequal": ", ".join(differences(stock.trainer, run)),
        "broken": "" if guarded.halted else guarded.error,
        "steps": counts.applied,
        "epochs": run.epoch + 1,
        "notes": [*warned, *([guarded.error] if guarded.error else [])],
    }


def differences(stock: Any, guarded: Any) -> list[str]:
    """Return what is not equal bit for bit after two runs."""
    pairs: dict[str, tuple[Any, Any]] = {
        "weights": (_network(stock.model), _network(guarded.model)),
        "EMA": (_network(stock.ema.ema), _network(guarded.ema.ema)),
        "EMA's counter": (stock.ema.updates, guarded.ema.updates),
        "optimizer": (stock.optimizer.state_dict()["state"], guarded.optimizer.state_dict()["state"]),
        "results.csv": (_rows(stock), _rows(guarded)),
        "final metrics": (json.dumps(stock.metrics, default=float), json.dumps(guarded.metrics, default=float)),
    }
    for name in ("last", "best"):
        pairs[f"{name}.pt"] = _checkpoint(getattr(stock, name)), _checkpoint(getattr(guarded, name))
    return [name for name, (left, right) in pairs.items() if not same(left, right)]


def same(left: Any, right: Any) -> bool:
    """Return whether two states are equal bit for bit, through dicts; NaN equals NaN."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        alike = left.dtype == right.dtype and left.shape == right.shape
        return alike and torch.equal(left.nan_to_num(), right.nan_to_num()) and torch.equal(left.isnan(), right.isnan())
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    return left == right


def _network(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _checkpoint(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        return {}
    content = torch.load(path, weights_only=False)
    return _network(content.get("ema") or content["model"])


def _rows(trainer: Any) -> list[Row]:
    """Return the rows of ``results.csv`` without what the clock and the guard have written."""
    if not trainer.csv.is_file():
        return []
    rows = csv.DictReader(trainer.csv.read_text(encoding="utf-8").splitlines())
    return [{k: v for k, v in row.items() if k != "time" and not k.startswith("guard/")} for row in rows]
