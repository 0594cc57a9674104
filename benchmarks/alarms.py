"""The divergence rule on scripted runs: alarms in healthy ones, delay in those that diverge, and its cost per step.

python -m benchmarks.alarms [--steps 1000000] [--runs 200] [--loss-rise 4] [--norm-rise 10] [--patience 32] [--json F]
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolo_stable.guard.divergence import Divergence

from .record import keep, show
from .traces import CLEAN, DIVERGING, EXPLODING, clean, diverging

LENGTHS = (*[1_000] * 20, *[3_000] * 5, 10_000, 30_000, 100_000)
"""Optimizer steps of the runs of one kind, again and again until there are enough: most begin, as beginnings are hardest."""
Make = Callable[[], Divergence]


def clean_row(kind: str, steps: int, make: Make) -> dict[str, Any]:
    """Return the alarms in healthy runs of one kind; after an alarm the streaks are forgotten, as after a roll-back."""
    alarms = suspicious = done = runs = 0
    while done < steps:
        length = max(100, min(LENGTHS[runs % len(LENGTHS)], steps - done))
        divergence = make()
        for loss, norm in clean(kind, runs, length):
            if divergence.add(loss, norm):
                alarms += 1
                divergence.reset_streaks()
            suspicious += divergence.suspicious
        done += length
        runs += 1
    return {"trace": kind, "runs": runs, "steps": done, "alarms": alarms, "suspicious steps": suspicious / done}


def diverging_row(kind: str, runs: int, make: Make) -> dict[str, Any]:
    """Return the share of diverging runs that were seen, and after how many steps."""
    delays, early = [], 0
    for seed in range(runs):
        begin = 3 if kind == EXPLODING else random.Random(f"begin {seed}").randint(300, 3_000)
        divergence = make()
        for i, (loss, norm) in enumerate(diverging(kind, seed, begin, begin + 6_000)):
            if divergence.add(loss, norm):
                early += i < begin
                if i >= begin:
                    delays.append(i - begin + 1)
                break
    found: dict[str, Any] = {"trace": kind, "runs": runs, "detected": len(delays) / runs, "too early": early}
    found["median delay"] = statistics.median(delays) if delays else None
    found["longest delay"] = max(delays) if delays else None
    return found


def cost_row(make: Make) -> dict[str, Any]:
    """Return the microseconds of one `add`, median of nine measurements of 10,000 steps."""
    steps = list(clean("from scratch", 0, 10_000))
    times = []
    for _ in range(9):
        add = make().add
        begin = time.perf_counter()
        for loss, norm in steps:
            add(loss, norm)
        times.append((time.perf_counter() - begin) / len(steps))
    return {"what": "add", "microseconds": statistics.median(times) * 1e6}


def main() -> None:
    """Count alarms in healthy and in diverging runs, and take the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="healthy steps over all kinds")
    parser.add_argument("--runs", type=int, default=200, help="diverging runs of each kind")
    parser.add_argument("--loss-rise", type=float, default=4.0)
    parser.add_argument("--norm-rise", type=float, default=10.0)
    parser.add_argument("--patience", type=int, default=32)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    settings = {key: value for key, value in vars(options).items() if key != "json"}

    def make() -> Divergence:
        return Divergence(options.loss_rise, options.norm_rise, options.patience)

    healthy = [clean_row(kind, -(-options.steps // len(CLEAN)), make) for kind in CLEAN]
    show("healthy runs", healthy)
    bad = [diverging_row(kind, options.runs, make) for kind in (*DIVERGING, EXPLODING)]
    show("diverging runs", bad)
    cost = [cost_row(make)]
    show("cost", cost)
    print(keep("alarms", [*healthy, *bad, *cost], settings, options.json))


if __name__ == "__main__":
    main()
