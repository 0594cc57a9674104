"""Host reads and dispatched operations: of whole micro-batches in a real run, and of one ``optimizer_step()``.

python -m benchmarks.reads [--model yolo11n.yaml] [--json F]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch

from yolo_stable.data.builtin import make

from .contenders import TRAINERS, fill_gradients, quiet, step_only
from .counting import DispatchCounter
from .record import keep, show


def run_reads(name: str, model: str, folder: Path) -> dict[str, Any]:
    """Return reads and operations per micro-batch of a run of two epochs, a step after every second batch."""
    counter = DispatchCounter()
    data = str(make("shapes", cache=folder, train=32, val=4, imgsz=64))
    settings: dict[str, Any] = {
        "model": model,
        "data": data,
        "epochs": 2,
        "imgsz": 64,
        "batch": 4,
        "nbs": 8,
        "val": False,
    }
    quiet_run: dict[str, Any] = {
        "device": "cpu",
        "plots": False,
        "verbose": False,
        "amp": False,
        "project": str(folder),
    }
    trainer = TRAINERS[name](overrides={**settings, **quiet_run, "optimizer": "SGD", "name": name})
    batches = 0

    def start(_: Any) -> None:
        nonlocal batches
        batches += 1
        counter.__enter__()

    trainer.add_callback("on_train_batch_start", start)
    trainer.add_callback("on_train_batch_end", lambda _: counter.__exit__(None, None, None))
    trainer.train()
    return {"what": "micro-batch", "trainer": name, "reads": counter.reads / batches, "ops": counter.ops / batches}


def step_counts(name: str, model: str, optimizer: str) -> dict[str, Any]:
    """Return reads and operations of one ``optimizer_step()``, the third, when all state is there."""
    trainer = step_only(name, model, optimizer)
    counter = DispatchCounter()
    for i in range(3):
        fill_gradients(trainer, i)
        counter.ops = counter.reads = 0
        with counter:
            trainer.optimizer_step()
    return {"what": f"optimizer_step, {optimizer}", "trainer": name, "reads": counter.reads, "ops": counter.ops}


def main() -> None:
    """Count all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        rows = [run_reads(name, options.model, Path(folder)) for name in TRAINERS]
    for optimizer in ("SGD", "AdamW", "MuSGD"):
        rows += [step_counts(name, options.model, optimizer) for name in TRAINERS]
    show("host reads and dispatched operations", rows)
    print(keep("reads", rows, {"model": options.model}, options.json))


if __name__ == "__main__":
    main()
