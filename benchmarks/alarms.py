"""The divergence rule on scripted runs: alarms in healthy ones, delay in those that diverge, and its cost per step.

What an older state has on the same data is scripted as well (see ``traces.py``), and the rule may ask as in a training.
``compared`` is how often it does, in micro-batches a step; each costs two forward passes.

python -m benchmarks.alarms [--steps 1000000] [--runs 200] [--loss-rise 4] [--norm-rise 10] [--patience 32] [--json F]
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yolo_stable.guard import GuardConfig
from yolo_stable.guard.divergence import Divergence
from yolo_stable.guard.evidence import DivergenceEvidence
from yolo_stable.guard.snapshot import SnapshotRing
from yolo_stable.guard.witness import BatchMeasurement
from yolo_stable.presets.guard_settings import GuardSettings

from .orders import ORDERS
from .record import keep, show
from .traces import CLEAN, DIVERGING, EXPLODING, Trace, diverging

LENGTHS = (*[1_000] * 20, *[3_000] * 5, 10_000, 30_000, 100_000)
"""Optimizer steps of the runs of one kind, again and again until there are enough: most begin, as beginnings are hardest."""


class ScriptedWitness:
    """Stands in for the model: the loss and norm of the trace's newest step under another state."""

    def __init__(self, trace: Trace) -> None:
        self.trace, self.state, self.compared = trace, 0, 0

    def hindrance(self) -> str:
        """Return nothing: one can always ask a script."""
        return ""

    def measure(self, tensors: Any, *, norm: bool) -> BatchMeasurement:
        """Return what the trace says; a snapshot's one tensor is the step that it was taken in, None is now."""
        self.compared += tensors is not None
        step = self.state if tensors is None else int(tensors["model/step"])
        return BatchMeasurement(*self.trace.under(step))


class Nothing:
    """Stands in for a training's state in a snapshot."""

    memory = None

    def aside(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return no generators, no plain values."""
        return {}, {}


class Rule:
    """Divergence, evidence and snapshots as ``Recovery`` uses them."""

    def __init__(self, trace: Trace, config: GuardConfig) -> None:
        self.witness = ScriptedWitness(trace)
        stands_in: Any = self.witness
        self.evidence = DivergenceEvidence(stands_in, config)
        self.divergence = Divergence(config.max_loss_rise, config.max_norm_rise, self.evidence.patience)
        nothing: Any = Nothing()
        self.ring, self._every = SnapshotRing(nothing, config.snapshots, "device"), config.snapshot_every or 1
        self.step = self._mark = 0
        self._take()

    def add(self, loss: float, norm: float) -> str:
        """Take a step, and return why it is an alarm."""
        self.step += 1
        self.witness.state = self.step
        why = self.divergence.add(loss, norm) or self.evidence.hear(self.divergence, self.ring, self.step)
        if self.step - self._mark >= self._every and not self.evidence.delays(self.divergence):
            self._take()
        return why

    def _take(self) -> None:
        live = {"model/step": torch.tensor(float(self.step))}
        self.ring.take(self.step, live)
        self.evidence.follow(self.divergence, self.step, live)
        self._mark = self.step


def clean_row(kind: str, steps: int, config: GuardConfig) -> dict[str, Any]:
    """Return the alarms in healthy runs of one kind; after an alarm the streaks are forgotten, as after a roll-back."""
    alarms = suspicious = compared = done = runs = 0
    while done < steps:
        length = max(100, min(LENGTHS[runs % len(LENGTHS)], steps - done))
        trace = Trace(kind, runs, length)
        rule = Rule(trace, config)
        for loss, norm in trace:
            if rule.add(loss, norm):
                alarms += 1
                rule.divergence.reset_streaks()
                rule.evidence.drop()
            suspicious += rule.divergence.suspicious
        compared += rule.witness.compared
        done += length
        runs += 1
    counted = {"suspicious steps": suspicious / done, "compared": compared / done}
    return {"trace": kind, "runs": runs, "steps": done, "alarms": alarms, **counted}


def diverging_row(kind: str, runs: int, config: GuardConfig, *, healthy: Sequence[str]) -> dict[str, Any]:
    """Return the share of diverging runs that were seen, and after how many steps; they begin as healthy ones of these kinds."""
    delays, early = [], 0
    for seed in range(runs):
        begin = 3 if kind == EXPLODING else random.Random(f"begin {seed}").randint(300, 3_000)
        trace = diverging(kind, seed, begin, begin + 6_000, healthy[seed % len(healthy)])
        rule = Rule(trace, config)
        for i, (loss, norm) in enumerate(trace):
            if rule.add(loss, norm):
                early += i < begin
                if i >= begin:
                    delays.append(i - begin + 1)
                break
    found: dict[str, Any] = {"trace": kind, "runs": runs, "detected": len(delays) / runs, "too early": early}
    found["median delay"] = statistics.median(delays) if delays else None
    found["longest delay"] = max(delays) if delays else None
    return found


def cost_row(config: GuardConfig) -> dict[str, Any]:
    """Return the microseconds of one step without a suspicion, median of nine measurements of 10,000 steps."""
    steps = [(6.0 + 0.1 * math.sin(i), 5.0) for i in range(10_000)]
    times = []
    for _ in range(9):
        rule = Rule(Trace("from scratch", 0, 100), config)
        divergence, evidence, ring = rule.divergence, rule.evidence, rule.ring
        begin = time.perf_counter()
        for loss, norm in steps:
            divergence.add(loss, norm)
            evidence.hear(divergence, ring, 1)
        times.append((time.perf_counter() - begin) / len(steps))
    return {"what": "add and hear", "microseconds": statistics.median(times) * 1e6}


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

    config = GuardSettings.of(
        {"max_loss_rise": options.loss_rise, "max_norm_rise": options.norm_rise, "patience": options.patience}
    ).guard
    healthy = [clean_row(kind, -(-options.steps // len(CLEAN)), config) for kind in CLEAN]
    show("healthy runs", healthy)
    shuffled = [kind for kind in CLEAN if kind not in ORDERS]
    bad = [diverging_row(kind, options.runs, config, healthy=shuffled) for kind in (*DIVERGING, EXPLODING)]
    show("diverging runs", bad)
    ordered = [
        {**row, "trace": f"{row['trace']}, unshuffled"}
        for kind in DIVERGING
        for row in [diverging_row(kind, options.runs, config, healthy=tuple(ORDERS))]
    ]
    show("diverging runs in an unshuffled order", ordered)
    cost = [cost_row(config)]
    show("cost", cost)
    print(keep("alarms", [*healthy, *bad, *ordered, *cost], settings, options.json))


if __name__ == "__main__":
    main()
