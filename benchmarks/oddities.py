"""Honest trainings that look odd, told by stock and by the guarded trainer with the same seed: nothing may be harmed.

    python -m benchmarks.oddities [--only NAME ...] [--steps reference auto] [--jobs 2] [--seed 0]
        [--limit 300] [--json F]

The bar is 0 in every column: no rejection, rollback, repair, lower precision, halt, early end, image left out, refused
checkpoint, and no warning that stock does not give (advice about the length of warm-up and decay is arithmetic, and is left
out). With ``reference`` weights, EMA, optimizer, checkpoints and ``results.csv``
are stock's bit for bit; the step of the default, ``auto``, is equal to rounding, and is held to the rest. Each story is told
in one process; one that takes longer than ``--limit`` seconds is a failure. The exit code is 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# Before the first import of Ultralytics: its settings file goes to a folder of our own, and nothing asks the network.
os.environ.setdefault("YOLO_CONFIG_DIR", OWN := tempfile.mkdtemp(prefix="oddities-"))
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", MPLBACKEND="Agg")

import torch

from .oddity_run import FALSE, Row, compare
from .oddity_stories import STORIES
from .record import keep, show

PASSES: dict[str, Row] = {"reference": {"step": "reference"}, "auto": {}}
"""Settings of the guard in each pass."""
ROWS, SAID = "rows.json", "said.txt"


def child(name: str, steps: list[str], folder: Path, seed: int) -> None:
    """Tell a story in this process, and leave the rows and all that was printed in the folder."""
    said = os.open(folder / SAID, os.O_WRONLY | os.O_CREAT)
    os.dup2(said, 1)
    os.dup2(said, 2)
    torch.set_num_threads(1)
    story = replace(STORIES[name], settings={"seed": seed, **STORIES[name].settings})
    rows = compare(story, folder, {step: PASSES[step] for step in steps})
    (folder / ROWS).write_text(json.dumps(rows, default=str), encoding="utf-8")


@dataclass
class Telling:
    """A story that is being told in a process of its own."""

    name: str
    steps: list[str]
    limit: float
    seed: int
    folder: tempfile.TemporaryDirectory[str] = field(default_factory=lambda: tempfile.TemporaryDirectory("-oddity"))
    begun: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        # Forked where that can be had: the imports take longer than a training.
        how = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
        context: Any = multiprocessing.get_context(how)
        self.process: BaseProcess = context.Process(
            target=child, args=(self.name, self.steps, Path(self.folder.name), self.seed)
        )
        self.process.start()

    @property
    def is_over(self) -> bool:
        """Whether the process has ended; one that is out of time is ended."""
        if self.process.is_alive() and time.perf_counter() - self.begun > self.limit:
            self.process.kill()
            self.process.join()
        return not self.process.is_alive()

    def rows(self) -> list[Row]:
        """Return the rows, and clear away what the run has left."""
        file, said = Path(self.folder.name, ROWS), Path(self.folder.name, SAID)
        if file.is_file():
            rows = json.loads(file.read_text(encoding="utf-8"))
        else:
            last = (
                said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:] if said.is_file() else []
            )
            why = f"exit code {self.process.exitcode}: {' '.join(last)}"
            rows = [{"step": step, "broken": why} for step in self.steps]
        self.folder.cleanup()
        seconds = round(time.perf_counter() - self.begun, 1)
        return [{"story": self.name, **row, "seconds": seconds} for row in rows]


def told(names: list[str], steps: list[str], jobs: int, limit: float, seed: int) -> Iterator[Row]:
    """Tell stories, several at a time, and yield their rows as they come."""
    left, running = list(names), []
    while left or running:
        while left and len(running) < jobs:
            running.append(Telling(left.pop(0), steps, limit, seed))
        wait([telling.process.sentinel for telling in running], timeout=1.0)
        over = [telling for telling in running if telling.is_over]
        running = [telling for telling in running if telling not in over]
        for telling in over:
            yield from telling.rows()


def faults(row: Row) -> str:
    """Return what an honest training has suffered, in words; empty when nothing."""
    if row["broken"]:
        return f"broken: {row['broken']}"
    wrong = [f"{row[what]} {what}" for what in FALSE if row[what]]
    if row["unequal"] and row["step"] == "reference":
        wrong.append(f"not stock's: {row['unequal']}")
    return "; ".join(wrong)


def total(rows: Iterable[Row], step: str) -> Row:
    """Return the sums over the rows of a pass."""
    mine = [row for row in rows if row["step"] == step]
    whole = [row for row in mine if not row["broken"]]
    sums: Row = {"trainings": len(mine), "optimizer steps": sum(row["steps"] for row in whole)}
    sums |= {what: sum(row[what] for row in whole) for what in FALSE}
    return sums | {
        "not bit for bit stock's": sum(bool(row["unequal"]) for row in whole),
        "broken": len(mine) - len(whole),
    }


def main() -> int:
    """Tell the stories that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(STORIES), default=list(STORIES))
    parser.add_argument("--steps", nargs="+", choices=list(PASSES), default=list(PASSES))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--seed", type=int, default=0, help="of weights, batches and augmentation; the pictures are the same"
    )
    parser.add_argument("--limit", type=float, default=300.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: list[Row] = []
    for row in told(options.only, options.steps, options.jobs, options.limit, options.seed):
        rows.append(row)
        wrong = faults(row)
        print(f"{row['step']} | {row['story']}: {wrong or 'as stock'} ({row['seconds']:.0f} s)", flush=True)
        for note in row.get("notes", ()) if wrong else ():
            print(f"    {note}", flush=True)
    sums = {step: total(rows, step) for step in options.steps}
    overview = [{"": what, **{step: sums[step][what] for step in sums}} for what in sums[options.steps[0]]]
    show("Honest trainings, and what they suffered", overview)
    whole = set(options.only) == set(STORIES) and set(options.steps) == set(PASSES)
    if options.json or whole:  # a part does not take the place of the kept results
        print(keep("oddities", [*overview, *rows], {"jobs": options.jobs, "seed": options.seed}, options.json))
    shutil.rmtree(OWN, ignore_errors=True)
    return int(any(faults(row) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
