"""What it costs to be able to go back: snapshots and audits in a steady run, and one rollback.

python -m benchmarks.snapshots [--models yolo11n.yaml ...] [--batch 16] [--imgsz 320] [--repeats 15] [--json F]
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
from ultralytics.utils import DEFAULT_CFG

from yolo_stable import StepGuard
from yolo_stable.presets.guard_settings import GuardSettings

from .contenders import fill_gradients, quiet, step_only
from .record import keep, show


def milliseconds(work: Callable[[], Any], repeats: int) -> float:
    """Return the median time of ``work``, after one run that builds what it keeps."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def batch_of(size: int, imgsz: int) -> dict[str, torch.Tensor]:
    """Return a batch with three boxes an image."""
    generator = torch.Generator().manual_seed(0)
    boxes = 3 * size
    return {
        "img": torch.rand(size, 3, imgsz, imgsz, generator=generator),
        "cls": torch.randint(0, 80, (boxes, 1), generator=generator).float(),
        "bboxes": torch.rand(boxes, 4, generator=generator) * 0.4 + 0.2,
        "batch_idx": torch.arange(size).repeat_interleave(3).float(),
    }


def measure(model: str, optimizer: str, batch: int, imgsz: int, repeats: int) -> dict[str, Any]:
    """Return one row: a training step, a snapshot with its audit, a rollback, and the share of the first in the steady run."""
    trainer = step_only("guarded", model, optimizer)
    trainer.model.args = get_cfg(DEFAULT_CFG)
    trainer.guard = guard = StepGuard(
        trainer.model, trainer.optimizer, ema=trainer.ema, config=GuardSettings.of().guard
    )
    images = batch_of(batch, imgsz)

    def step() -> None:
        loss, _ = trainer.model.loss(images)
        guard.backward(loss.sum())
        guard.step()
        trainer.ema.update(trainer.model)

    whole = milliseconds(step, max(repeats // 5, 3))
    recovery = guard.recovery
    assert recovery is not None
    every = guard.config.snapshot_every or 1

    def snapshot() -> None:
        recovery._mark = -every  # due at once
        guard.settle()

    kept = milliseconds(snapshot, repeats)
    newest = recovery.ring.newest
    assert newest is not None

    def roll_back() -> None:
        fill_gradients(trainer, 0)  # as in the middle of a window
        start = time.perf_counter()
        recovery._restore_snapshot(newest)
        taken.append((time.perf_counter() - start) * 1e3)

    taken: list[float] = []
    for _ in range(repeats):
        roll_back()
    return {
        "model": model,
        "optimizer": optimizer,
        "step ms": whole,
        "snapshot + audit ms": kept,
        "steady cost %": 100 * kept / (every * whole),
        "rollback ms": statistics.median(taken),
        "snapshots MiB": recovery.ring.nbytes / 2**20,
    }


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["yolo11n.yaml", "yolo11s.yaml"])
    parser.add_argument("--optimizers", nargs="+", default=["SGD", "AdamW"])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quiet()
    rows = [
        measure(model, optimizer, options.batch, options.imgsz, options.repeats)
        for model in options.models
        for optimizer in options.optimizers
    ]
    settings = {"batch": options.batch, "imgsz": options.imgsz, "repeats": options.repeats}
    show("snapshots, audit and rollback", rows)
    print(keep("snapshots", rows, settings, options.json))


if __name__ == "__main__":
    main()
