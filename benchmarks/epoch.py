"""Whole training epochs, stock and guarded in turns, with a confidence interval for the ratio.

    python -m benchmarks.epoch [--model yolo11n.yaml] [--pairs 8] [--batches 12] [--imgsz 160] [--batch 8] [--json F]

Both trainers run with the same data, seeds and settings, one after the other, in alternating order; each pair gives the ratio
of the time between the first batch's start and the last batch's end, validation left out.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch

from .contenders import TRAINERS, quiet
from .paired import epoch_ratios, interval, settings
from .record import keep, show


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
        overrides = settings(options, Path(folder), optimizer=options.optimizer)
        ratios = epoch_ratios(
            options.pairs, ("stock", "guarded"), lambda name: TRAINERS[name](overrides={**overrides, "name": name})
        )
    low, high = interval(ratios)
    row = {"model": options.model, "epochs": len(ratios), "guarded / stock": statistics.median(ratios)}
    rows = [{**row, "95 % low": low, "95 % high": high}]
    show("process time of whole epochs, one thread", rows)
    print(keep("epoch", rows, {k: v for k, v in vars(options).items() if k != "json"}, options.json))


if __name__ == "__main__":
    main()
