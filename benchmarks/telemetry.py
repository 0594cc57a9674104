"""What a run pays for the numbers of its steps in ``guard.jsonl``, and for the warnings made of them.

    python -m benchmarks.telemetry [--model yolo11n.yaml] [--blocks 40] [--pairs 8] [--batches 20] [--imgsz 160] [--json F]

Guarded trainers with ``guard.telemetry_every`` as it is (10) and with None, which leaves all of it out; the same data, seeds
and settings. First two trainers side by side that train on the same batches in turns, ten optimizer steps each, in alternating
order: one of the ten leaves a line. Then whole trainings in turns, each epoch against the same one of the other. Last the time
that is spent in the telemetry itself, by a clock around its functions (of this thread): it is far below what the ratios can show.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from yolo_stable.guard.step import ReferenceStep
from yolo_stable.runlog.reader import read_events
from yolo_stable.runlog.step_metrics import StepMetrics
from yolo_stable.runlog.writer import RunLog
from yolo_stable.trainer.trainers import TRAINERS

from .autopsy_rig import Rig
from .contenders import quiet
from .paired import arguments, epoch_ratios, on_off, order, settings
from .record import keep, show

OFF_ON = ("off", "on")
GUARDS: dict[str, dict[str, Any]] = {"off": {"telemetry_every": None}, "on": {}}
BLOCK = 10
"""Optimizer steps in turns: as many as there are to a line."""


def side_by_side(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a row for blocks of steps in turns, and one for the time inside the telemetry."""
    size = {"warm": 2 * BLOCK, "imgsz": options.imgsz, "batch": options.batch, "model": options.model}
    rigs = {guard: Rig("detect", folder / guard, **size, guard=GUARDS[guard]) for guard in GUARDS}
    ratios: list[float] = []
    seconds = inside = 0.0
    with clocked() as spent:
        for number in range(options.blocks):
            times = {}
            for guard in order(number, OFF_ON):
                batches = [rigs[guard].draw(BLOCK * number + i) for i in range(BLOCK)]
                before, begun = spent(), time.process_time()
                for batch in batches:
                    rigs[guard].feed(batch)
                times[guard] = time.process_time() - begun
                if guard == "on":
                    inside += spent() - before
            ratios.append(times["on"] / times["off"])
            seconds += times["on"]
    rows = (
        on_off("ten steps in turns", options.model, ratios, lines=lines(folder / "on")),
        cost(options, seconds, inside),
    )
    for rig in rigs.values():
        rig.close()
    return rows


@contextmanager
def clocked() -> Iterator[Callable[[], float]]:
    """Measure what is spent in the telemetry, the fetching of the shares and the writing included; gives seconds so far."""
    spent = 0.0
    places: list[tuple[Any, str]] = [
        (StepMetrics, "before_step"),
        (StepMetrics, "add"),
        (StepMetrics, "record"),
        (ReferenceStep, "shares"),
        (RunLog, "steps"),
    ]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal spent
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent += time.thread_time() - begun

        return call

    own = [(kind, name, getattr(kind, name)) for kind, name in places]
    for kind, name, function in own:
        setattr(kind, name, timed(function))
    try:
        yield lambda: spent
    finally:
        for kind, name, function in own:
            setattr(kind, name, function)


def cost(options: argparse.Namespace, seconds: float, inside: float) -> dict[str, Any]:
    """Return a row for what a step spends in the telemetry."""
    steps = BLOCK * options.blocks
    return {
        "what": "inside the telemetry",
        "model": options.model,
        "steps": steps,
        "microseconds a step": 1e6 * inside / steps,
        "share of a step %": 100 * inside / seconds,
    }


def whole_runs(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Return a row for whole trainings in turns."""
    overrides = settings(options, folder, close_mosaic=0)
    ratios = epoch_ratios(
        options.pairs,
        OFF_ON,
        lambda guard: TRAINERS["detect"](overrides={**overrides, "guard": GUARDS[guard], "name": guard}),
    )
    return on_off("whole epochs", options.model, ratios, lines=lines(folder / "on"))


def lines(folder: Path) -> int:
    """Return how many lines the telemetry has left in the newest log under a folder; none would make the figures void."""
    logs = sorted(folder.rglob("guard.jsonl"), key=lambda path: path.stat().st_mtime)
    return sum(event["event"] == "steps" for event in read_events(logs[-1])) if logs else 0


def main() -> None:
    """Measure all of it."""
    parser = arguments(__doc__, pairs=8, batches=20)
    parser.add_argument("--blocks", type=int, default=40, help="times ten steps of each, in turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        turns, inside = side_by_side(options, Path(folder))
        rows = [turns, whole_runs(options, Path(folder))]
    show("process time with telemetry, of that without", rows)
    show("the telemetry by itself", [inside])
    print(keep("telemetry", [*rows, inside], {k: v for k, v in vars(options).items() if k != "json"}, options.json))


if __name__ == "__main__":
    main()
