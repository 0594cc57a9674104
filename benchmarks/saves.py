"""What a save costs the training: stock's and the guarded one in turns, and the steps that run while files are written.

python -m benchmarks.saves [--models yolo11n.yaml ...] [--optimizers SGD AdamW] [--pairs 2] [--saves 4] [--json F]

Real trainings of both kinds, one after the other, on small pictures; every other epoch ends with a save, and the first is left
out. Given are medians: what ``save_model()`` takes on the clock, and of the processor's time of the thread that trains, which
others on the machine do not disturb; what the thread that writes takes of both; and how much longer the steps beside it take,
per save, than those at the same places of epochs that follow no save. An epoch of these small ones may be shorter than its
writing: what the next save would have to wait for the one before is given by itself.
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

from yolo_stable.checkpoints import writer as checkpoint
from yolo_stable.checkpoints.save import write
from yolo_stable.data.builtin import make

from .contenders import TRAINERS, quiet
from .paired import order
from .record import keep, show

NAMES = ("stock", "guarded")


@dataclass
class Times:
    """Seconds, of all saves and steps of one kind of trainer; pairs: on the clock, and of the thread's processor time."""

    saves: list[tuple[float, float]] = field(default_factory=list)
    written: list[tuple[float, float]] = field(default_factory=list)
    """Of the thread that writes."""
    waits: list[float] = field(default_factory=list)
    """Before a save, for the one before."""
    beside: dict[int, list[float]] = field(default_factory=dict)
    """Steps that began while files were written, by their place in the epoch."""
    alone: dict[int, list[float]] = field(default_factory=dict)
    """All other steps, likewise."""

    def slowed(self) -> float:
        """Return by how much the steps beside one save were longer than others at the same places."""
        longer = 0.0
        for place, steps in self.beside.items():
            if place in self.alone:
                longer += sum(steps) - statistics.median(self.alone[place]) * len(steps)
        return longer / len(self.saves)


def now() -> tuple[float, float]:
    """Return the time on the clock and that which this thread has had of a processor."""
    return time.perf_counter(), time.thread_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Return what both have moved on by."""
    clock, processor = now()
    return clock - start[0], processor - start[1]


def watched(name: str, times: Times) -> type:
    """Return a trainer of a kind that takes the times of its saves and steps."""

    class Watched(TRAINERS[name]):  # type: ignore[misc, valid-type]
        step = (0.0, False)
        place = 0

        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            if event == "on_train_epoch_start":
                self.place = 0
            elif event == "on_train_batch_start":
                services = getattr(self, "services", None)
                self.step = time.perf_counter(), services is not None and services.checkpoints.is_writing
            elif event == "on_train_batch_end":
                began, is_beside = self.step
                if self.epoch > 1:  # the first two are those of caches that are still cold
                    steps = times.beside if is_beside else times.alone
                    steps.setdefault(self.place, []).append(time.perf_counter() - began)
                self.place += 1

        def save_model(self) -> Any:
            if not self.epoch % 2:
                return False
            start = now()
            services = getattr(self, "services", None)
            if services is not None:
                services.checkpoints.finish()
            times.waits.append(since(start)[0])
            start = now()
            saved = super().save_model()
            assert saved
            if self.epoch > 1:
                times.saves.append(since(start))
            return saved

        def final_eval(self) -> None:
            """Leave the files as they are."""

    return Watched


def train(name: str, times: Times, overrides: dict[str, Any]) -> None:
    """Train once, and take the time of the thread that writes as well."""

    def timed(save: Any) -> Any:
        start = now()
        outcome = write(save)
        times.written.append(since(start))
        return outcome

    checkpoint.write = timed
    try:
        watched(name, times)(overrides={**overrides, "name": name}).train()
    finally:
        checkpoint.write = write
    gc.collect()


def medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the median on the clock and that of the processor's time."""
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def measure(model: str, optimizer: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return one row."""
    data = make("shapes", cache=folder, train=options.batches * options.batch, val=options.batch, imgsz=options.imgsz)
    overrides = {
        "model": model,
        "data": str(data),
        "epochs": 2 * options.saves + 2,
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
        "project": str(folder),
        "exist_ok": True,
    }
    times = {name: Times() for name in NAMES}
    for pair in range(options.pairs):
        for name in order(pair, NAMES):
            train(name, times[name], overrides)
            print(f"{model} {optimizer} {name}: saves {[round(s, 2) for s, _ in times[name].saves]}", flush=True)
    stock, guarded = times["stock"], times["guarded"]
    (clock, processor), (our_clock, our_processor) = medians(stock.saves), medians(guarded.saves)
    written, of_processor = medians(guarded.written)
    alone = statistics.median(seconds for steps in guarded.alone.values() for seconds in steps)
    return {
        "model": model,
        "optimizer": optimizer,
        "saves": len(guarded.saves),
        "stock s": clock,
        "guarded s": our_clock,
        "more s": our_clock - clock,
        "stock cpu s": processor,
        "guarded cpu s": our_processor,
        "more cpu s": our_processor - processor,
        "beside s": written,
        "beside cpu s": of_processor,
        "step s": alone,
        "slowed s": guarded.slowed(),
        "wait s": statistics.median(guarded.waits),
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
