"""The report of a very long run: seconds, peak memory and size of the page, for a log of a million events.

python -m benchmarks.report [--events 1000000] [--every 50000] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ITEMS = ("box_loss", "cls_loss", "dfl_loss")
STEPS_PER_EPOCH = 5000


def write_log(path: Path, events: int, every: int) -> None:
    """Write a log with a line for each step, a rejection, its incident and a rollback now and then.

    Args:
        path: Of the ``guard.jsonl``.
        events: Lines, about.
        every: Steps between two rejections.
    """
    noise = random.Random(0)
    with open(path, "w", encoding="utf-8") as file:

        def tell(event: str, now: int, **details: Any) -> None:
            epoch = now // STEPS_PER_EPOCH + 1
            file.write(json.dumps({"schema": 1, "event": event, "time": 1.7e9 + now, "epoch": epoch, **details}) + "\n")

        tell("start", 0, versions={}, guard={"max_norm": 10.0}, preset=None, epochs_before=0)
        for step in range(1, events):
            level = 1 + 3 * math.exp(-step / (events / 5))
            tell(
                "steps", step, batch=step % STEPS_PER_EPOCH + 1, step=step, norm=5 * math.exp(noise.gauss(0, 0.5)), clip=1.0,
                loss={name: level * noise.uniform(0.9, 1.1) for name in ITEMS}, lr=[0.01, 0.01, 0.02], scale=65536.0,
                seconds=0.25, memory=2_000_000_000, layers=[[f"model.{i}.conv", 0.1] for i in range(10)],
            )  # fmt: skip
            if step % every == 0:
                files = [f"/data/images/train/{i:06d}.jpg" for i in range(16)]
                tell(
                    "rejection",
                    step,
                    batch=7,
                    step=step,
                    what="micro_batch",
                    reason="loss nan",
                    loss="nan",
                    files=files,
                )
                samples = [{"path": files[0], "index": 0, "tile": None, "label_row": None}]
                tell(
                    "incident",
                    step,
                    kind="micro_batch",
                    folder=None,
                    cause="data",
                    phase="data",
                    samples=samples,
                    evidence={},
                    next="",
                )
                tell(
                    "climb", step, rung="roll_back", reason="loss", step=step, to_step=step - 10, lost=10, lr_factor=0.5
                )
            if step % STEPS_PER_EPOCH == 0:
                tell(
                    "epoch",
                    step - 1,
                    applied=STEPS_PER_EPOCH,
                    clipped=9,
                    rejected=0,
                    norm_mean=5.0,
                    norm_max=40.0,
                    loss={},
                )
        tell("end", events, status="done", message="", counts={"micro_batches": events, "applied": events})


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--every", type=int, default=50_000, help="steps between two rejections")
    parser.add_argument("--keep", type=Path, help="write the run here, and leave it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = options.keep or Path(scratch)
        run.mkdir(parents=True, exist_ok=True)
        write_log(run / "guard.jsonl", options.events, options.every)
        size = (run / "guard.jsonl").stat().st_size
        start = time.perf_counter()
        subprocess.run([sys.executable, "-m", "yolo_stable", "report", str(run)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        peak, computed = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime  # KiB on Linux; seconds of a core
        page = (run / "report.html").stat().st_size
    print(f"{options.events:,} events, {size / 1e6:,.0f} MB: {seconds:.1f} s ({computed:.1f} s of a core)", end=", ")
    print(f"{peak:,.0f} MiB at the peak, page {page / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
