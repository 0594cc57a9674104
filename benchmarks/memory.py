"""Memory that the guard takes over stock: held between steps, and at the peak of ``optimizer_step()``.

python -m benchmarks.memory [--models yolo11n.yaml ...] [--optimizers SGD ...] [--json F]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from .contenders import fill_gradients, quiet, step_only
from .record import keep, show


def peak(trainer: Any, seed: int) -> int:
    """Return the most bytes that one ``optimizer_step()`` holds at a time beyond what it found."""
    fill_gradients(trainer, seed)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        trainer.optimizer_step()
    results: Any = recorded.profiler
    changes = [e for e in results.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for change in sorted(changes, key=lambda e: e.start_ns()):
        held += change.nbytes()
        most = max(most, held)
    return most


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of all optimizer state."""
    tensors = [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


def measure(model: str, optimizer: str) -> dict[str, Any]:
    """Return what the guard holds and uses beyond stock, in MB."""
    stock, guarded = (step_only(name, model, optimizer) for name in ("stock", "guarded"))
    for i in range(2):
        for trainer in (stock, guarded):
            fill_gradients(trainer, i)
            if trainer is guarded:  # the forward pass's part: all copies of the buffers are there after one
                copy, _ = guarded.guard.shadow.capture()
                guarded.guard.shadow.accept(copy)
            trainer.optimizer_step()
    norms = [m for m in guarded.model.modules() if isinstance(m, nn.BatchNorm2d)]
    buffers = sum(b.numel() * b.element_size() for m in norms for b in m.buffers())
    held = guarded.guard.shadow.nbytes + state_bytes(guarded.optimizer) - state_bytes(stock.optimizer)
    guarded.guard.recovery._mark = -guarded.guard.config.snapshot_every  # due at once
    guarded.guard.settle()
    one = guarded.guard.recovery.ring.newest.nbytes
    copies = guarded.guard.recovery.ring.keep + 1  # and that of the best validation
    return {
        "model": model,
        "optimizer": optimizer,
        "BatchNorm buffers MB": buffers / 1e6,
        "held over stock MB": held / 1e6,
        "snapshots MB": copies * one / 1e6,
        "peak of a step, stock MB": peak(stock, 5) / 1e6,
        "peak of a step, guarded MB": peak(guarded, 5) / 1e6,
    }


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=("yolo11n.yaml", "yolo11m.yaml", "yolo26n.yaml"))
    parser.add_argument("--optimizers", nargs="+", default=("SGD", "AdamW", "MuSGD"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    rows = [measure(model, optimizer) for model in options.models for optimizer in options.optimizers]
    show("memory over stock", rows)
    print(keep("memory", rows, {}, options.json))


if __name__ == "__main__":
    main()
