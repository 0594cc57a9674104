"""What faults that come again and again cost: real trainings with one every 20, 50 and 200 steps, each beside its clean twin.

    python -m benchmarks.rollbacks [--intervals 20 50 200] [--seeds 3] [--epochs 26] [--kinds] [--json F]

A narrow detector that has learned something goes on for so many epochs of 16 steps. ``by chance`` draws each fault from the
catalogue (those of a learning rate that is too high are left out: there the learning rate has to back off); with ``--kinds``
each of them also comes alone, every 20 steps for ten epochs. ``six flipped bits`` is a story of its own: the highest exponent
bit of six weights, in 160 steps. The bar: no halt, a mean factor on the learning rate of 0.99 or more, a healthy checkpoint.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import PASSING, Fault
from yolo_stable.errors import TrainingHaltedError

from .contenders import quiet
from .faults import health, last_map50
from .narrow import BATCHES, settings, trained
from .record import keep, show

SHORT = 10
"""Epochs of the story and of a kind alone: 160 steps."""
HIGHEST = 30
"""The highest exponent bit of a float32."""
BAR = 0.99
Row = dict[str, Any]


def watched(flips: Mapping[int, int]) -> Any:
    """Return a guarded trainer that notes its factor on the learning rate, and in which bits of weights flip.

    Args:
        flips: Batch of the run to the seed that draws the weight.
    """

    class Watched(StableDetectionTrainer):
        factors: list[float]
        flipped: int

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            if not hasattr(self, "factors"):
                self.factors, self.flipped, self._begun = [], 0, -1
            self._begun += 1
            if self._begun in flips:
                dice = random.Random(flips[self._begun])
                model: Any = self.model
                weight = dice.choice([p for p in model.parameters() if p.ndim == 4]).data.view(-1)
                number = weight[dice.randrange(len(weight)) :][:1]
                number.copy_((number.view(torch.int32) ^ (1 << HIGHEST)).view(torch.float32))
                self.flipped += 1
            return super().preprocess_batch(batch)

        def optimizer_step(self) -> None:
            assert self.guard is not None
            assert self.guard.recovery is not None
            self.factors.append(self.guard.recovery.lr_backoff.factor)
            super().optimizer_step()

    return Watched


def train(overrides: Row, faults: list[Fault], flips: Mapping[int, int]) -> Row:
    """Train one case and return what came of it."""
    kind: Any = watched(flips)
    for fault in faults:
        kind = fault.on(kind)
    armed = [vars(part)["chaos"] for part in kind.__mro__ if "chaos" in vars(part)]
    escalations: list[Any] = []
    trainer: Any = kind(overrides=overrides)
    service = trainer.services.incidents
    tell = service.on_escalation
    service.on_escalation = lambda escalation: (escalations.append(escalation), tell(escalation))[1]
    ending = "done"
    try:
        trainer.train()
    except TrainingHaltedError as halt:
        ending = f"halted: {halt}"
    counts = trainer.guard.counts
    return {
        "ending": ending,
        "fired": sum(a.fired for a in armed) + trainer.flipped,
        "planned": sum(len(a.fault.at) for a in armed) + len(flips),
        "batches": len(trainer.factors),
        "mean lr factor": statistics.fmean(trainer.factors),
        "rejected": counts.rejected,
        "rollbacks": counts.rollbacks,
        "EMA repairs": sum(escalation.level.value == "repair" for escalation in escalations),
        "steps lost": len(trainer.factors) - trainer.guard.recovery.trained,
        "mAP50": last_map50(trainer.save_dir),
        "last.pt": health(trainer.last),
    }


def by_chance(interval: int, steps: int, seed: int) -> list[Fault]:
    """Draw one fault for each interval, anywhere in it."""
    dice, drawn = random.Random(f"{interval} {seed}"), {}
    for begin in range(0, steps - interval + 1, interval):
        name = dice.choice(list(PASSING))
        drawn.setdefault(name, []).append(begin + dice.randrange(1, interval))
    return [Fault(*PASSING[name], at=tuple(at)) for name, at in drawn.items()]


def cases(options: argparse.Namespace) -> Iterator[tuple[str, int, int, list[Fault], dict[int, int]]]:
    """Yield the cases: name, seed, epochs, faults, and flips."""
    for seed in range(options.seeds):
        flips = {12 + 26 * i: 100 * seed + i for i in range(6)}
        yield "six flipped bits", seed, SHORT, [], flips
        for interval in options.intervals:
            faults = by_chance(interval, options.epochs * BATCHES, seed)
            yield f"by chance, every {interval} steps", seed, options.epochs, faults, {}
    if options.kinds:
        for name, (place, value) in PASSING.items():
            at = tuple(range(15, SHORT * BATCHES - 5, 20))
            yield f"{name}, every 20 steps", 0, SHORT, [Fault(place, value, at=at)], {}


def rows(options: argparse.Namespace, folder: Path) -> Iterator[Row]:
    """Train the start, then each case and the clean twin of its seed and length."""
    start = str(trained(folder, options.start_epochs))
    clean: dict[tuple[int, int], Row] = {}
    for name, seed, epochs, faults, flips in cases(options):
        given = settings(folder, model=start, epochs=epochs, lr0=0.002, warmup_epochs=0.5, seed=seed)
        if (seed, epochs) not in clean:
            clean[seed, epochs] = train({**given, "name": f"clean-{seed}-{epochs}"}, [], {})
        run = train({**given, "name": "case"}, faults, flips)
        good = run["ending"] == "done" and run["mean lr factor"] >= BAR and run["last.pt"] == "healthy"
        verdict = "as it should be" if good and run["fired"] == run["planned"] else "not so"
        yield {"case": name, "seed": seed, "verdict": verdict, **run, "clean mAP50": clean[seed, epochs]["mAP50"]}


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--intervals", nargs="*", type=int, default=[20, 50, 200])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=26)
    parser.add_argument("--start-epochs", type=int, default=30)
    parser.add_argument("--kinds", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    found: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for row in rows(options, Path(folder)):
            found.append(row)
            print(f"{row['case']}, seed {row['seed']}: {row['verdict']}, {row['ending']}", flush=True)
    hidden = {"ending", "planned", "batches", "rejected"}
    show("faults again and again", [{k: v for k, v in row.items() if k not in hidden} for row in found])
    told = {k: v for k, v in vars(options).items() if k != "json"}
    print(keep("rollbacks", found, told, options.json))


if __name__ == "__main__":
    main()
