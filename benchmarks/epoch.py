"""Whole training epochs, stock and guarded in turns, with a confidence interval for the ratio.

    python -m benchmarks.epoch [--model yolo11n.yaml] [--pairs 8] [--batches 12] [--imgsz 160] [--batch 8] [--json F]

Both trainers run with the same data, seeds and settings, one after the other, in alternating order; each pair gives the ratio
of the time between the first batch's start and the last batch's end, validation left out.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import torch

from .contenders import TRAINERS, quiet
from .paired import arguments, epoch_ratios, interval, settings
from .record import keep, show


def main() -> None:
    """Run the pairs."""
    parser = arguments(__doc__, pairs=8, batches=12)
    parser.add_argument("--optimizer", default="SGD")
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
