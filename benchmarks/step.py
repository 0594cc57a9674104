"""What one ``optimizer_step()`` costs: norm, clip, step, BatchNorm, EMA; stock, clip-and-skip and guarded in turns.

python -m benchmarks.step [--models yolo11n.yaml ...] [--optimizers SGD ...] [--repeats 30] [--json F] [--plot F]
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from .contenders import TRAINERS, fill_gradients, quiet, step_only
from .record import keep, show, spread

MODELS = ("yolo11n.yaml", "yolo11s.yaml", "yolo11m.yaml", "yolo26n.yaml")
OPTIMIZERS = ("SGD", "AdamW", "MuSGD")


def measure(model: str, optimizer: str, repeats: int) -> dict[str, Any]:
    """Return the times of one case in milliseconds, and the ratios to stock."""
    trainers = {name: step_only(name, model, optimizer) for name in TRAINERS}
    times: dict[str, list[float]] = {name: [] for name in trainers}
    for i in range(repeats + 3):
        order = list(trainers) if i % 2 else list(reversed(trainers))
        for name in order:
            fill_gradients(trainers[name], i)
            start = time.perf_counter()
            trainers[name].optimizer_step()
            times[name].append((time.perf_counter() - start) * 1e3)
    times = {name: values[3:] for name, values in times.items()}  # the first ones build state and caches
    ratios = {n: [a / b for a, b in zip(times[n], times["stock"], strict=True)] for n in times}
    size = sum(p.numel() for p in trainers["stock"].model.parameters())
    return {
        "model": model,
        "optimizer": optimizer,
        "parameters": size,
        "stock ms": statistics.median(times["stock"]),
        "clip-and-skip / stock": spread(ratios["clip-and-skip"])["median"],
        "guarded / stock": spread(ratios["guarded"])["median"],
        "q1": spread(ratios["guarded"])["q1"],
        "q3": spread(ratios["guarded"])["q3"],
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw cost against the number of parameters, a line for each optimizer, stock dashed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for color, optimizer in zip(("C0", "C1", "C2"), OPTIMIZERS, strict=False):
        points = sorted((r for r in rows if r["optimizer"] == optimizer), key=lambda r: r["parameters"])
        if points:
            x = [r["parameters"] / 1e6 for r in points]
            stock = [r["stock ms"] for r in points]
            guarded = [r["stock ms"] * r["guarded / stock"] for r in points]
            axes.plot(x, stock, "o--", color=color, label=f"{optimizer}, stock")
            axes.plot(x, guarded, "o-", color=color, label=f"{optimizer}, guarded")
    axes.set(xscale="log", yscale="log", xlabel="parameters (million)", ylabel="optimizer_step() (ms, one CPU thread)")
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--optimizers", nargs="+", default=OPTIMIZERS)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    rows = []
    for model in options.models:
        for optimizer in options.optimizers:
            # Newton-Schulz takes a second or more a step: fewer repeats say as much.
            repeats = options.repeats if optimizer != "MuSGD" else max(options.repeats // 4, 5)
            rows.append(measure(model, optimizer, repeats))
            print(f"{model} {optimizer}: guarded / stock {rows[-1]['guarded / stock']:.3f}", flush=True)
    show("optimizer_step(), one CPU thread", rows)
    print(keep("step", rows, {"repeats": options.repeats}, options.json))
    if options.plot:
        plot(rows, options.plot)


if __name__ == "__main__":
    main()
