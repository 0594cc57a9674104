"""What a save costs the training: stock's and the guarded one in turns, and the steps that run while files are written.

python -m benchmarks.saves [--models yolo11n.yaml ...] [--optimizers SGD AdamW] [--pairs 2] [--saves 4] [--json F]

Real trainings of both kinds, one after the other, on small pictures; each epoch ends with a save, and the first is left out, as
it writes no optimizer state of long standing. The training's clock is what ``save_model()`` takes; beside it are shown how long
the thread wrote, and how much longer the steps of that time took than the others.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from yolo_stable import background
from yolo_stable.builtin_data import make

from .contenders import TRAINERS, quiet
from .paired import order
from .record import keep, show

NAMES = ("stock", "guarded")


@dataclass
class Times:
    """Seconds, of all saves and steps of one kind of trainer."""

    saves: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    """From the first batch to the end of the save."""
    beside: list[float] = field(default_factory=list)
    """Steps that began while files were written."""
    alone: list[float] = field(default_factory=list)
    """All other steps."""
    written: list[float] = field(default_factory=list)
    """What the thread took."""


def watched(name: str, times: Times) -> type:
    """Return a trainer of a kind that takes the times of its saves and steps."""

    class Watched(TRAINERS[name]):  # type: ignore[misc, valid-type]
        began = step_began = 0.0
        is_beside = False

        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            now = time.perf_counter()
            if event == "on_train_epoch_start":
                self.began = now
            elif event == "on_train_batch_start":
                self.step_began, self.is_beside = now, is_writing(self)
            elif event == "on_train_batch_end" and self.epoch:
                (times.beside if self.is_beside else times.alone).append(now - self.step_began)

        def save_model(self) -> Any:
            start = time.perf_counter()
            saved = super().save_model()
            assert saved
            end = time.perf_counter()
            if self.epoch:
                times.saves.append(end - start)
                times.epochs.append(end - self.began)
            return saved

        def final_eval(self) -> None:
            """Leave the files as they are."""

    return Watched


def is_writing(trainer: Any) -> bool:
    """Return whether a save of a trainer is being written."""
    writing = getattr(trainer, "_writing", None)
    return writing is not None and not writing.idle and not writing.done


def train(name: str, times: Times, overrides: dict[str, Any]) -> None:
    """Train once, with the thread's time taken as well."""
    run = background.Background._do

    def timed(self: Any, job: Any) -> None:
        start = time.perf_counter()
        run(self, job)
        times.written.append(time.perf_counter() - start)

    background.Background._do = timed
    try:
        watched(name, times)(overrides={**overrides, "name": name}).train()
    finally:
        background.Background._do = run
    gc.collect()


def measure(model: str, optimizer: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return one row."""
    data = make("shapes", cache=folder, train=options.batches * options.batch, val=options.batch, imgsz=options.imgsz)
    overrides = {
        "model": model,
        "data": str(data),
        "epochs": options.saves + 1,
        "imgsz": options.imgsz,
        "batch": options.batch,
        "nbs": options.batch,
        "optimizer": optimizer,
        "lr0": 0.0001,
        "amp": False,
        "val": False,
        "plots": False,
        "verbose": False,
        "device": "cpu",
        "workers": 0,
        "project": str(folder),
        "exist_ok": True,
    }
    times = {name: Times() for name in NAMES}
    for pair in range(options.pairs):
        for name in order(pair, NAMES):
            train(name, times[name], overrides)
            print(f"{model} {optimizer} {name}: saves {[round(s, 2) for s in times[name].saves]}", flush=True)
    stock, guarded = times["stock"], times["guarded"]
    more = statistics.median(guarded.saves) - statistics.median(stock.saves)
    alone = statistics.median(guarded.alone) if guarded.alone else float("nan")
    beside = statistics.median(guarded.beside) if guarded.beside else float("nan")
    slowed = sum(guarded.beside) - alone * len(guarded.beside) if guarded.alone and guarded.beside else 0.0
    return {
        "model": model,
        "optimizer": optimizer,
        "saves": len(guarded.saves),
        "stock s": statistics.median(stock.saves),
        "guarded s": statistics.median(guarded.saves),
        "more s": more,
        "written beside s": statistics.median(guarded.written) if guarded.written else 0.0,
        "step alone s": alone,
        "step beside s": beside,
        "steps slowed, a save s": slowed / max(len(guarded.saves), 1),
        "epoch stock s": statistics.median(stock.epochs),
        "epoch guarded s": statistics.median(guarded.epochs),
    }


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["yolo11n.yaml", "yolo11m.yaml", "yolo11x.yaml"])
    parser.add_argument("--optimizers", nargs="+", default=["SGD", "AdamW"])
    parser.add_argument("--pairs", type=int, default=2)
    parser.add_argument("--saves", type=int, default=4, help="that are measured, of each training")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--imgsz", type=int, default=96)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(model, name, options, Path(folder)) for model in options.models for name in options.optimizers]
    show("seconds of a save", rows)
    print(keep("saves", rows, {k: v for k, v in vars(options).items() if k not in {"json", "models"}}, options.json))


if __name__ == "__main__":
    main()
