"""Whole training epochs, stock and guarded in turns, with a confidence interval for the ratio.

    python -m benchmarks.epoch [--model yolo11n.yaml] [--pairs 8] [--batches 12] [--imgsz 160] [--batch 8] [--json F]

Both trainers run with the same data, seeds and settings, one after the other, in alternating order; each pair gives the ratio
of the time between the first batch's start and the last batch's end, validation left out.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from yolo_stable.builtin_data import make

from .contenders import TRAINERS, quiet
from .record import keep, show


def epoch_times(name: str, settings: dict[str, Any]) -> list[float]:
    """Return the seconds of process time of each epoch but the first, which builds state and caches."""
    trainer = TRAINERS[name](overrides={**settings, "name": name})
    times: list[float] = []
    begun = 0.0

    def start(_: Any) -> None:
        nonlocal begun
        begun = time.process_time()

    trainer.add_callback("on_train_epoch_start", start)
    trainer.add_callback("on_train_epoch_end", lambda _: times.append(time.process_time() - begun))
    trainer.train()
    return times[1:]


def interval(values: list[float], rounds: int = 5000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(0.025 * rounds)], medians[int(0.975 * rounds)]


def main() -> None:
    """Run the pairs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--optimizer", default="SGD")
    parser.add_argument("--pairs", type=int, default=8, help="runs of three measured epochs, of each trainer")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        images = options.batches * options.batch
        data = str(make("shapes", cache=folder, train=images, val=4, imgsz=options.imgsz))
        settings: dict[str, Any] = {
            "model": options.model,
            "data": data,
            "epochs": 4,
            "imgsz": options.imgsz,
            "batch": options.batch,
            "nbs": options.batch,  # a step after every batch: the guard's share is largest
            "optimizer": options.optimizer,
            "lr0": 0.001,
            "amp": False,
            "val": False,
            "plots": False,
            "verbose": False,
            "device": "cpu",
            "project": folder,
            "exist_ok": True,
        }
        ratios: list[float] = []
        for pair in range(options.pairs):
            order = ("stock", "guarded") if pair % 2 else ("guarded", "stock")
            times = {name: epoch_times(name, settings) for name in order}
            ratios += [a / b for a, b in zip(times["guarded"], times["stock"], strict=True)]
            print(f"pair {pair + 1}: {[round(r, 3) for r in ratios[-3:]]}", flush=True)
    low, high = interval(ratios)
    row = {"model": options.model, "epochs": len(ratios), "guarded / stock": statistics.median(ratios)}
    rows = [{**row, "95 % low": low, "95 % high": high}]
    show("process time of whole epochs, one thread", rows)
    print(keep("epoch", rows, {k: v for k, v in vars(options).items() if k != "json"}, options.json))


if __name__ == "__main__":
    main()
