"""Whole trainings of two trainers in turns: each epoch of the one against the same epoch of the other."""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolo_stable.data.builtin import make


def arguments(description: str | None, *, pairs: int, batches: int) -> argparse.ArgumentParser:
    """Return a parser of what all of these benchmarks can be told.

    Args:
        description: Its docstring.
        pairs: Runs of each, without a word.
        batches: Of an epoch, without a word.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--pairs", type=int, default=pairs, help="runs of three measured epochs, of each")
    parser.add_argument("--batches", type=int, default=batches)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--json", type=Path)
    return parser


def on_off(what: str, model: str, ratios: list[float], **more: Any) -> dict[str, Any]:
    """Return a row: the ratio's median and its interval; met when the interval does not lie above 1."""
    low, high = interval(ratios)
    row = {"what": what, "model": model, "pairs": len(ratios), "on / off": statistics.median(ratios)}
    return {**row, "95 % low": low, "95 % high": high, **more, "met": low <= 1.0}


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
