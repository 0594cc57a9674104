"""Whole trainings of two trainers in turns: each epoch of the one against the same epoch of the other."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolo_stable.builtin_data import make


def order(number: int, names: tuple[str, str]) -> tuple[str, str]:
    """Return who comes first this time: each of the two every other time."""
    return names if number % 2 else (names[1], names[0])


def settings(options: argparse.Namespace, folder: Path, **changes: Any) -> dict[str, Any]:
    """Return overrides of a training of four short epochs on shapes, on the CPU.

    Args:
        options: With ``model``, ``batches`` of an epoch, ``batch`` and ``imgsz``.
        folder: For the data set and the runs.
        **changes: Further overrides.
    """
    data = make("shapes", cache=folder, train=options.batches * options.batch, val=4, imgsz=options.imgsz)
    common = {
        "model": options.model,
        "data": str(data),
        "epochs": 4,
        "imgsz": options.imgsz,
        "batch": options.batch,
        "nbs": options.batch,  # a step after every batch: what comes with a step has its largest share
        "optimizer": "SGD",
        "lr0": 0.001,
        "amp": False,
        "val": False,
        "plots": False,
        "verbose": False,
        "device": "cpu",
        "project": str(folder),
        "exist_ok": True,
    }
    return {**common, **changes}


def epoch_times(trainer: Any) -> list[float]:
    """Train, and return the seconds of process time of each epoch but the first, which builds state and caches."""
    times: list[float] = []
    begun = 0.0

    def start(_: Any) -> None:
        nonlocal begun
        begun = time.process_time()

    trainer.add_callback("on_train_epoch_start", start)
    trainer.add_callback("on_train_epoch_end", lambda _: times.append(time.process_time() - begun))
    trainer.train()
    return times[1:]


def epoch_ratios(pairs: int, names: tuple[str, str], trainer: Callable[[str], Any]) -> list[float]:
    """Return the time of each epoch of the second, relative to that of the first.

    Args:
        pairs: Trainings of each.
        names: What is the measure, and what is measured by it.
        trainer: Makes a new trainer of that name.
    """
    ratios: list[float] = []
    for pair in range(pairs):
        times = {name: epoch_times(trainer(name)) for name in order(pair, names)}
        new = [b / a for a, b in zip(times[names[0]], times[names[1]], strict=True)]
        print(f"pair {pair + 1}: {[round(ratio, 3) for ratio in new]}", flush=True)
        ratios += new
    return ratios


def interval(values: list[float], rounds: int = 5000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the median."""
    generator = random.Random(0)
    medians = sorted(statistics.median(generator.choices(values, k=len(values))) for _ in range(rounds))
    return medians[int(0.025 * rounds)], medians[int(0.975 * rounds)]
