"""The fault matrix: one fault in a real training run costs one batch and nothing else.

A narrow detector is trained once until it finds most figures. Every story goes on from there for three epochs with one
fault in them, and has to end as the clean run does.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel

from yolo_stable import StableDetectionTrainer
from yolo_stable.events import read_events

EPOCHS, BATCHES = 3, 16
NAN, INF = float("nan"), float("inf")


@dataclass
class Fault:
    """One fault: what, where, and at which batches of the whole run (from 0); counts how often it fired."""

    place: str
    value: float
    at: tuple[int, ...]
    fired: int = 0
    batches: int = 0

    def trainer(self, base: type) -> type:
        """Return ``base`` with the fault in its data, its loss or its gradients, put there from outside."""
        fault = self

        class Faulty(base):  # type: ignore[misc, valid-type]
            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                batch = super().preprocess_batch(batch)
                if fault.place == "pixel" and fault.batches in fault.at:
                    batch["img"][0, 1, 20, 30] = fault.value
                    fault.fired += 1
                fault.batches += 1
                return batch

            def optimizer_step(self) -> None:
                if fault.place == "gradient" and fault.batches - 1 in fault.at:
                    weight = next(p for p in self.model.parameters() if p.grad is not None)
                    weight.grad.view(-1)[5] = fault.value
                    fault.fired += 1
                super().optimizer_step()

        return Faulty

    def in_loss(self, stock: Callable[..., Any]) -> Callable[..., Any]:
        """Return Ultralytics' ``DetectionModel.loss`` with the fault in what it returns during training."""

        def loss(model: Any, batch: Any, preds: Any = None) -> Any:
            total, items = stock(model, batch, preds)
            if model.training and self.place == "loss" and self.batches - 1 in self.at:
                self.fired += 1
                total, items = total * self.value, {**items, "box_loss": items["box_loss"] * self.value}
            return total, items

        return loss


LAST = EPOCHS * BATCHES - 1
EVERY_EPOCH = tuple(e * BATCHES + 3 for e in range(EPOCHS))
FAULTS = {
    "nan pixel, first batch of the first epoch": ("pixel", NAN, (0,)),
    "nan pixel, in the middle": ("pixel", NAN, (20,)),
    "nan pixel, last batch": ("pixel", NAN, (LAST,)),
    "nan pixel, in every epoch": ("pixel", NAN, EVERY_EPOCH),
    "inf pixel": ("pixel", INF, (20,)),
    "huge pixel": ("pixel", 1e20, (20,)),
    "nan loss, first batch of the first epoch": ("loss", NAN, (0,)),
    "nan loss, in the middle": ("loss", NAN, (20,)),
    "nan loss, last batch of an epoch": ("loss", NAN, (BATCHES - 1,)),
    "nan loss, last batch": ("loss", NAN, (LAST,)),
    "inf loss, in every epoch": ("loss", INF, EVERY_EPOCH),
    "nan gradient": ("gradient", NAN, (20,)),
    "inf gradient": ("gradient", INF, (20,)),
    "-inf gradient, first step": ("gradient", -INF, (0,)),
    "1e18 gradient": ("gradient", 1e18, (20,)),
    "1e25 gradient": ("gradient", 1e25, (20,)),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]) -> str:
    """Return weights that already find the figures, so that losing them would show."""
    trainer = StableDetectionTrainer(
        overrides={
            "model": narrow("detect"),
            "data": shapes("detect", train=128, val=32),
            "epochs": 30,
            "imgsz": 64,
            "batch": 8,
            "nbs": 8,
            "optimizer": "AdamW",
            "lr0": 0.004,
            "warmup_epochs": 1,
            "warmup_bias_lr": 0.01,
            "mosaic": 0.0,
            "amp": False,
            "device": "cpu",
            "plots": False,
            "verbose": False,
            "project": str(tmp_path_factory.mktemp("trained")),
        }
    )
    trainer.train()
    assert map50(trainer) > 0.3
    return str(trainer.best)


@pytest.fixture
def go_on(trained: str, arguments: Callable[..., dict[str, Any]], shapes: Callable[..., str]) -> Callable[..., Any]:
    """Train three epochs more from the trained weights, with a trainer class of the caller's."""

    def run(trainer_class: type, **changes: Any) -> Any:
        data = shapes("detect", train=128, val=32)
        settings = {"model": trained, "data": data, "batch": 8, "nbs": 8, "epochs": EPOCHS, "mosaic": 0.0, "lr0": 0.002}
        trainer = trainer_class(overrides=arguments("detect", **{**settings, **changes}))
        trainer.train()
        return trainer

    return run


@pytest.fixture(scope="module")
def clean() -> dict[str, float]:
    """Holds the mAP of the run without a fault, once it is known."""
    return {}


def map50(trainer: Any) -> float:
    return float(trainer.metrics["metrics/mAP50(B)"])


def rows(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "results.csv").read_text().splitlines()))


def finite(module: torch.nn.Module) -> bool:
    return all(bool(v.isfinite().all()) for v in module.state_dict().values())


def checkpoint_is_healthy(path: Path) -> bool:
    content = torch.load(path, weights_only=False)
    model = content["ema"] or content["model"]
    weights = [p for p in model.parameters() if p.ndim == 4]
    return finite(model) and all(bool(p.any()) for p in weights)  # and none is the zeros that stock would write


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_its_batch_and_nothing_else(
    name: str,
    go_on: Callable[..., Any],
    clean: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if not clean:
        clean["mAP50"] = map50(go_on(StableDetectionTrainer))
    fault = Fault(*FAULTS[name])
    monkeypatch.setattr(DetectionModel, "loss", fault.in_loss(DetectionModel.loss))
    recoveries: list[bool] = []
    stock_recovery = DetectionTrainer._handle_nan_recovery
    monkeypatch.setattr(
        DetectionTrainer,
        "_handle_nan_recovery",
        lambda self, epoch: bool(recoveries.append(stock_recovery(self, epoch))),
    )
    capfd.readouterr()

    trainer = go_on(fault.trainer(StableDetectionTrainer))

    assert fault.fired == len(fault.at), "the fault was injected"
    counts = trainer.guard.counts
    assert counts.rejected == fault.fired, "one rejection for each"
    assert counts.applied == EPOCHS * BATCHES - fault.fired
    assert trainer.ema.updates == counts.applied
    assert fault.batches == EPOCHS * BATCHES, "no epoch was done again"
    assert recoveries == [False] * EPOCHS, "the recovery of Ultralytics was asked and never fired"
    for module in (trainer.model, trainer.ema.ema):
        assert finite(module)
    assert checkpoint_is_healthy(trainer.last)
    assert checkpoint_is_healthy(trainer.best)
    assert abs(map50(trainer) - clean["mAP50"]) < 0.1

    table = rows(trainer.save_dir)
    assert len(table) == EPOCHS
    assert all(math.isfinite(float(value)) for row in table for value in row.values())
    assert sum(float(row["guard/rejected"]) for row in table) == fault.fired
    shown = [line for line in capfd.readouterr().out.replace("\r", "\n").splitlines() if "rejected:" not in line]
    bars = [line for line in shown if "it/s" in line or "/16" in line]
    assert bars
    assert not any("nan" in line.lower().split() for line in bars)
    rejections = [e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == "rejection"]
    assert [(e["epoch"] - 1) * BATCHES + e["batch"] - 1 for e in rejections] == list(fault.at)
    assert all(len(e["files"]) == 8 and Path(e["files"][0]).is_file() for e in rejections)


def test_stock_loses_the_weights_to_one_nan_pixel(go_on: Callable[..., Any]) -> None:
    """What the matrix protects from: the same fault, the same weights, Ultralytics alone."""
    fault = Fault("pixel", NAN, (0,))
    trainer = go_on(fault.trainer(DetectionTrainer), epochs=1)
    assert fault.fired == 1
    assert not finite(trainer.model)
    assert map50(trainer) == 0.0
