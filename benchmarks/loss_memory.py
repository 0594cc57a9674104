"""What it costs a micro-batch to watch what the loss keeps, and what a step costs to notice other parameters.

python -m benchmarks.loss_memory [--models yolo11n.yaml ...] [--batch 4] [--imgsz 320] [--repeats 15] [--json F]

The share is that of one forward and backward pass beside it, measured in turns. The smaller the pass, the larger the share: on an
accelerator with a pass of 30 ms, 0.2 % are 60 microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG

from yolo_stable.guard.memory import Memory
from yolo_stable.guard.parameter_walk import ParameterWalk

from .contenders import quiet
from .record import keep, show
from .snapshots import batch_of

INNER = 200
"""Calls that are timed together, as one takes microseconds."""


def measure(network: str, batch: int, imgsz: int, repeats: int) -> dict[str, Any]:
    """Return one row: microseconds of the memory and of the walk, and their shares of a forward and backward pass."""
    model: Any = DetectionModel(network, verbose=False)
    model.args = get_cfg(DEFAULT_CFG)
    images = batch_of(batch, imgsz)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    model.loss(images)[0].sum().backward()
    memory, walk = Memory(model), ParameterWalk()
    walk.begin(model, optimizer)

    def watch() -> None:
        memory.before_forward()
        memory.accept()

    def train() -> None:
        model.zero_grad()
        model.loss(images)[0].sum().backward()

    works: dict[str, tuple[Callable[[], Any], int]] = {
        "train": (train, 1),
        "memory": (watch, INNER),
        "walk": (lambda: walk.is_current(optimizer), INNER),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, (work, calls) in works.items():
            start = time.perf_counter()
            for _ in range(calls):
                work()
            times[name].append((time.perf_counter() - start) / calls)
    median = {name: statistics.median(values) for name, values in times.items()}
    return {
        "model": network,
        "holders": len(memory._holders),
        "pass ms": round(median["train"] * 1e3, 1),
        "memory us": round(median["memory"] * 1e6, 1),
        "memory %": round(100 * median["memory"] / median["train"], 4),
        "walk us": round(median["walk"] * 1e6, 1),
        "walk %": round(100 * median["walk"] / median["train"], 4),
    }


def main() -> None:
    """Print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["yolo11n.yaml", "yolo26n.yaml", "yolo11m.yaml"])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    quiet()
    rows = [measure(model, args.batch, args.imgsz, args.repeats) for model in args.models]
    show("What the loss keeps", rows)
    print(keep("loss_memory", rows, {"batch": args.batch, "imgsz": args.imgsz, "repeats": args.repeats}, args.json))


if __name__ == "__main__":
    main()
