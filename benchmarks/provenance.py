"""What a healthy run pays for being able to name the culprit: provenance, remembered batches, and the guard's readiness.

    python -m benchmarks.provenance [--model yolo11n.yaml] [--pairs 6] [--batches 8] [--imgsz 160] [--batch 8] [--json F]

Guarded trainers with ``guard.incidents`` as it is and with None, which leaves all of it out, the same data, seeds and
settings, mosaic on: whole trainings one after the other in alternating order, the time of each epoch against the same one of
the other; and then two trainers side by side that get the same batches in turns, drawing included.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from yolo_stable.trainer.trainers import TRAINERS

from .autopsy_rig import Rig
from .contenders import quiet
from .paired import arguments, epoch_ratios, on_off, order, settings
from .record import keep, show

OFF_ON = ("off", "on")
GUARDS: dict[str, dict[str, Any]] = {"off": {"incidents": None}, "on": {}}


def whole_runs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return a row for whole trainings in turns."""
    overrides = settings(options, folder, close_mosaic=0)
    ratios = epoch_ratios(
        options.pairs,
        OFF_ON,
        lambda guard: TRAINERS["detect"](overrides={**overrides, "guard": GUARDS[guard], "name": guard}),
    )
    return on_off("whole epochs", options.model, ratios)


def side_by_side(options: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Return a row for batches in turns, and one for the drawing of a batch alone, which is where provenance is noted.

    A batch is drawn three times, and the fastest counts: on a machine that does something else as well, the difference of
    half a millisecond is seen in no other way.
    """
    size = {"warm": 3, "imgsz": options.imgsz, "batch": options.batch, "model": options.model}
    rigs = {guard: Rig("detect", folder / guard, **size, guard=GUARDS[guard]) for guard in GUARDS}
    ratios: list[float] = []
    drawing: list[tuple[float, float]] = []
    for number in range(options.windows):
        times, drawn = {}, {}
        for guard in order(number, OFF_ON):
            rig = rigs[guard]
            begun = time.process_time()
            rig.feed(rig.draw(number))
            times[guard] = time.process_time() - begun
            drawn[guard] = min(seconds_of(rig, number) for _ in range(3))
        ratios.append(times["on"] / times["off"])
        drawing.append((drawn["on"], drawn["off"]))
    alone = on_off("drawing alone", options.model, [on / off for on, off in drawing])
    added = 1e6 * statistics.median(on - off for on, off in drawing) / options.batch
    return [on_off("batches in turns", options.model, ratios), {**alone, "added, us per image": added, "met": ""}]


def seconds_of(rig: Rig, number: int) -> float:
    """Return the process time of drawing a batch."""
    begun = time.process_time()
    rig.draw(number)
    return time.process_time() - begun


def main() -> None:
    """Measure both."""
    parser = arguments(__doc__, pairs=6, batches=8)
    parser.add_argument("--windows", type=int, default=80, help="batches in turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        rows = [*side_by_side(options, Path(folder)), whole_runs(options, Path(folder))]
    show("process time with incidents and provenance, of that without", rows)
    print(keep("provenance", rows, {k: v for k, v in vars(options).items() if k != "json"}, options.json))


if __name__ == "__main__":
    main()
