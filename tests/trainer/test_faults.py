"""The fault matrix: one fault in a real training run costs one batch and nothing else.

A narrow detector is trained once until it finds most figures. Every story goes on from there for three epochs with one
fault in them, and has to end as the clean run does.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import CATALOGUE, STATE_PLACES
from yolo_stable.runlog.reader import read_events

EPOCHS, BATCHES, BATCH = 3, 8, 8
REJECTED = [name for name in CATALOGUE if CATALOGUE[name](EPOCHS, BATCHES).place in {"pixel", "loss", "gradient"}]
"""The faults that the guard sees in the batch itself, and undoes with it."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]) -> str:
    """Return weights that already find the figures, so that losing them would show; saved and validated once, at the end."""
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
            "val": False,
            "save": False,
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
        data = shapes("detect", train=BATCHES * BATCH, val=32)
        settings = {"data": data, "batch": BATCH, "nbs": BATCH, "epochs": EPOCHS, "mosaic": 0.0, "lr0": 0.002}
        trainer = trainer_class(overrides=arguments("detect", model=trained, **{**settings, **changes}))
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


def test_the_matrix_has_all_its_faults() -> None:
    assert len(REJECTED) == 16


@pytest.mark.usefixtures("without_epilogue")
@pytest.mark.parametrize("name", REJECTED)
def test_a_fault_costs_its_batch_and_nothing_else(
    name: str,
    go_on: Callable[..., Any],
    clean: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    if not clean:
        clean["mAP50"] = map50(go_on(StableDetectionTrainer))
    fault = CATALOGUE[name](EPOCHS, BATCHES)
    capfd.readouterr()

    trainer = go_on(fault.on(StableDetectionTrainer))

    assert trainer.chaos.fired == len(fault.at), "the fault was injected"
    counts = trainer.guard.counts
    assert counts.rejected == trainer.chaos.fired, "one rejection for each"
    assert counts.applied == EPOCHS * BATCHES - trainer.chaos.fired
    assert trainer.ema.updates == counts.applied
    assert trainer.chaos.batches == EPOCHS * BATCHES, "no epoch was done again"
    assert counts.rollbacks == 0, "one false alarm costs its batch and no more"
    for module in (trainer.model, trainer.ema.ema):
        assert finite(module)
    assert checkpoint_is_healthy(trainer.last)
    assert checkpoint_is_healthy(trainer.best)
    assert abs(map50(trainer) - clean["mAP50"]) < 0.1

    table = rows(trainer.save_dir)
    assert len(table) == EPOCHS
    assert all(math.isfinite(float(value)) for row in table for value in row.values())
    assert sum(float(row["guard/rejected"]) for row in table) == trainer.chaos.fired
    shown = [line for line in capfd.readouterr().out.replace("\r", "\n").splitlines() if "rejected:" not in line]
    bars = [line for line in shown if "it/s" in line or f"/{BATCHES}" in line]
    assert bars
    assert not any("nan" in line.lower().split() for line in bars)
    rejections = [e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == "rejection"]
    assert [(e["epoch"] - 1) * BATCHES + e["batch"] - 1 for e in rejections] == list(fault.at)
    assert all(len(e["files"]) == BATCH and Path(e["files"][0]).is_file() for e in rejections)


PUT_BACK = sorted(name for name, make in CATALOGUE.items() if make(EPOCHS, BATCHES).place in STATE_PLACES)


@pytest.mark.usefixtures("without_epilogue")
@pytest.mark.parametrize("name", PUT_BACK)
def test_a_ruined_state_is_put_back_and_costs_16_steps_at_most(
    name: str, go_on: Callable[..., Any], clean: dict[str, float]
) -> None:
    if not clean:
        clean["mAP50"] = map50(go_on(StableDetectionTrainer))
    fault = CATALOGUE[name](EPOCHS, BATCHES)
    trainer = go_on(fault.on(StableDetectionTrainer), optimizer=fault.optimizer or "SGD")

    assert trainer.chaos.fired == len(fault.at), "the fault was injected"
    escalations = [e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == "climb"]
    counts = trainer.guard.counts
    assert counts.rollbacks <= 1
    assert sum(e["lost"] for e in escalations) + counts.rejected <= 16
    # A young average forgets within a few steps; no audit need ever have seen it.
    assert escalations or counts.rejected or name == "1e30 in the EMA", "it was noticed"
    for module in (trainer.model, trainer.ema.ema):
        assert finite(module)
        assert max(float(v.abs().max()) for v in module.state_dict().values()) < 1e8
    for state in trainer.optimizer.state.values():
        assert all(bool(v.isfinite().all()) for v in state.values() if isinstance(v, torch.Tensor))
    assert checkpoint_is_healthy(trainer.last)
    assert checkpoint_is_healthy(trainer.best)
    assert map50(trainer) > clean["mAP50"] - 0.15


def test_stock_loses_the_weights_to_one_nan_pixel(go_on: Callable[..., Any]) -> None:
    """What the matrix protects from: the same fault, the same weights, Ultralytics alone."""
    fault = CATALOGUE["nan pixel, first batch of the first epoch"](EPOCHS, BATCHES)
    trainer = go_on(fault.on(DetectionTrainer), epochs=1)
    assert trainer.chaos.fired == 1
    assert not finite(trainer.model)
    assert map50(trainer) == 0.0
