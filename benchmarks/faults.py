"""Every fault of the catalogue in a real training: stock, clip-and-skip and guarded, each against its own clean run.

    python -m benchmarks.faults [--only NAME ...] [--trainers NAME ...] [--start-epochs 30] [--images 128] [--lying] [--json F]

A narrow detector is trained once with stock; each case goes on from there for three epochs (six for the learning rate) of 16
steps with one fault in them. A case that crashes is a row. The verdicts:

- ``as clean``: mAP50 of the last epoch and of best.pt at most 0.1 below the clean run's, last.pt and best.pt healthy;
- ``mAP lost``, ``checkpoint ruined``, ``no checkpoint``: it ended with exit code 0, but not so;
- ``halted (healthy checkpoint)``, ``halted (no healthy checkpoint)``: the guard gave up, and last.pt is good, or is not;
- ``crash``: any other error;
- ``not fired``: the fault found no place, so that the row says nothing.

With ``--lying`` the guarded trainer alone computes on a backend whose norms, maxima and minima lose NaN and infinity.
"""

from __future__ import annotations

import argparse
import csv
import math
import tempfile
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_stable.chaos import CATALOGUE, Fault, LyingBackend
from yolo_stable.errors import TrainingHaltedError

from .contenders import TRAINERS, quiet
from .narrow import BATCH, IMAGES, settings, trained
from .record import keep, show

TOLERANCE = 0.1
"""mAP50 that a run may end below its clean one: that of one validation image in ten."""
FP16_MAX = torch.finfo(torch.float16).max
MAP50 = "metrics/mAP50(B)"
Row = dict[str, Any]


def epochs_for(name: str) -> int:
    """Return the epochs of a case: a learning rate from epoch 3 on needs time to do its work."""
    return 6 if name.startswith("lr ") else 3


def health(path: Path) -> str:
    """Return ``healthy``, ``ruined`` or ``none``.

    Ruined is what stock writes instead of NaN and infinities as well: kernels of zeros, and numbers at the end of fp16.
    """
    if not path.is_file():
        return "none"
    content = torch.load(path, weights_only=False)
    model: nn.Module = content["ema"] or content["model"]
    numbers = [v for v in model.state_dict().values() if v.is_floating_point()]
    limits = {torch.float16: FP16_MAX}
    sound = all(bool((v.abs() < limits.get(v.dtype, math.inf)).all()) for v in numbers)  # NaN is not below anything
    alive = all(bool(p.any()) for p in model.parameters() if p.ndim == 4)
    return "healthy" if sound and alive else "ruined"


def last_map50(folder: Path) -> float | None:
    """Return the mAP50 of the last epoch that was validated; None when there was none."""
    table = folder / "results.csv"
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines())) if table.is_file() else []
    return float(rows[-1][MAP50]) if rows else None


def steps_kept(optimizer: torch.optim.Optimizer) -> int:
    """Return the steps that AdamW has in its state: neither those left out nor those that came before an older state."""
    return max((int(state["step"]) for state in optimizer.state.values() if "step" in state), default=0)


def train(contender: str, fault: Fault | None, overrides: Row) -> Row:
    """Train one case to whatever end it has.

    Args:
        contender: A key of ``TRAINERS``.
        fault: What goes wrong; None: the clean run.
        overrides: The trainer's.

    Returns:
        ``ending`` (done, halted or crash), ``error``, mAP50, checkpoints, and what the fault and the guard counted.
    """
    kind: Any = TRAINERS[contender] if fault is None else fault.on(TRAINERS[contender])
    begun = time.perf_counter()
    trainer: Any = kind(overrides=overrides)
    ending, error = "done", ""
    try:
        trainer.train()
    except TrainingHaltedError as halt:
        ending, error = "halted", str(halt)
    except Exception as crash:  # noqa: BLE001 - whatever ends a contender is what is measured
        ending, error = "crash", f"{type(crash).__name__}: {crash}".splitlines()[0][:200]
    armed = getattr(trainer, "chaos", None)
    guard = getattr(trainer, "guard", None)
    return {
        "ending": ending,
        "mAP50 last epoch": last_map50(trainer.save_dir),
        "mAP50 best.pt": float(trainer.metrics[MAP50]) if ending == "done" and trainer.best.is_file() else None,
        "last.pt": health(trainer.last),
        "best.pt": health(trainer.best),
        "fired": armed.fired if armed else 0,
        "batches": armed.batches if armed else 0,
        "steps lost": armed.batches - steps_kept(trainer.optimizer) if armed else 0,
        "counts": guard.counts.to_dict() if guard else {},
        "seconds": round(time.perf_counter() - begun, 1),
        "error": error,
    }


def verdict(run: Row, clean: Row) -> str:
    """Judge a run by its clean one; see the module for the words."""
    if run["ending"] == "crash":
        return "crash"
    if run["ending"] == "halted":
        return f"halted ({'healthy' if run['last.pt'] == 'healthy' else 'no healthy'} checkpoint)"
    if not run["fired"]:
        return "not fired"
    checkpoints = {run["last.pt"], run["best.pt"]}
    if checkpoints != {"healthy"}:
        return "checkpoint ruined" if "ruined" in checkpoints else "no checkpoint"
    # Asked for what is true of a good run: a NaN is not, whatever it is compared with.
    kept = all(run[key] >= clean[key] - TOLERANCE for key in ("mAP50 last epoch", "mAP50 best.pt"))
    return "as clean" if kept else "mAP lost"


def cases(
    names: Iterable[str], contenders: Iterable[str], folder: Path, start_epochs: int, images: int = IMAGES
) -> Iterable[Row]:
    """Train the start, then a clean run for each contender and length, then each case, and yield its row."""
    start = str(trained(folder, start_epochs, images))
    clean: dict[tuple[str, int], Row] = {}
    contenders = list(contenders)
    for name in names:
        epochs = epochs_for(name)
        overrides = settings(folder, images, model=start, epochs=epochs, lr0=0.002, warmup_epochs=0.5)
        for contender in contenders:
            if (contender, epochs) not in clean:
                clean[contender, epochs] = train(contender, None, {**overrides, "name": f"clean-{contender}-{epochs}"})
            reference = clean[contender, epochs]
            run = train(contender, CATALOGUE[name](epochs, images // BATCH), {**overrides, "name": f"case-{contender}"})
            yield {
                "fault": name,
                "trainer": contender,
                "verdict": verdict(run, reference),
                **run,
                "clean last epoch": reference["mAP50 last epoch"],
                "clean best.pt": reference["mAP50 best.pt"],
            }


def overview(rows: list[Row]) -> list[Row]:
    """Return a row for each fault and a column for each contender: verdict, mAP50 of the last epoch, steps lost."""
    table: dict[str, Row] = {}
    for row in rows:
        last = row["mAP50 last epoch"]
        shown = "none" if last is None else f"{last:.2f} of {row['clean last epoch']:.2f}"
        lost = f", {row['steps lost']} steps lost" if row["steps lost"] else ""
        table.setdefault(row["fault"], {"fault": row["fault"]})[row["trainer"]] = f"{row['verdict']}: {shown}{lost}"
    return list(table.values())


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(CATALOGUE), default=list(CATALOGUE))
    parser.add_argument("--trainers", nargs="+", metavar="NAME", choices=list(TRAINERS), default=list(TRAINERS))
    parser.add_argument("--start-epochs", type=int, default=30)
    parser.add_argument("--images", type=int, default=IMAGES, help="of the training set, in batches of 8")
    parser.add_argument("--lying", action="store_true", help="on a backend that loses NaN; kept as faults_lying")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    rows: list[Row] = []
    contenders = ["guarded"] if options.lying else options.trainers
    with tempfile.TemporaryDirectory() as folder, LyingBackend(infinity=True) if options.lying else nullcontext():
        for row in cases(options.only, contenders, Path(folder), options.start_epochs, options.images):
            rows.append(row)
            print(f"{row['fault']} | {row['trainer']}: {row['verdict']} {row['error']}", flush=True)
    show("mAP50 of the last epoch, of the clean run's", overview(rows))
    contended = options.lying or set(options.trainers) == set(TRAINERS)
    whole = contended and set(options.only) == set(CATALOGUE) and options.images == IMAGES
    if options.json or whole:  # a part does not take the place of the kept results
        print(
            keep(
                "faults_lying" if options.lying else "faults",
                rows,
                {"start_epochs": options.start_epochs, "batches": options.images // BATCH},
                options.json,
            )
        )


if __name__ == "__main__":
    main()
