"""SIGKILL at random moments, again and again, each followed by a resume: is the run ever lost, or a checkpoint damaged?

python -m benchmarks.kills [--kills 100] [--chains 2] [--seed 0] [--json F]

Each chain is one run of a narrow detector that would take for ever. Every other kill comes some time after it has begun to
train, in the middle of whatever it does; the others come while it writes: a moment after a file that is not whole yet has
appeared beside its checkpoints. Then every file that it left is read, and it is resumed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from yolo_stable._shared.atomic_file import PART
from yolo_stable.checkpoints.state_file import read as read_state
from yolo_stable.runlog.reader import read_events

from .narrow import settings
from .record import keep, show

PATIENCE = 120.0
"""Seconds after which a process that has not begun to train is taken for one that cannot."""
LONGEST = 3.0
"""Seconds of training before a kill, at most; an epoch takes a good second, of which a save is about a tenth."""


def start(folder: Path, last: Path | None) -> subprocess.Popen[str]:
    """Start the run, or resume it from its last checkpoint, in a process group of its own."""
    asked = settings(folder, epochs=100000, name="run", val=True)
    data = asked.pop("data")
    words = [f"{key}={value}" for key, value in asked.items()]
    if last is not None:
        words = [f"model={last}", "resume=True", "device=cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "yolo_stable", "train", str(data), *words]
    out = open(folder / "out.txt", "w")  # noqa: SIM115 - the process writes into it until it is killed
    return subprocess.Popen(command, stdout=out, stderr=out, text=True, env=environment, start_new_session=True)


WRITING = 0.15
"""Seconds after a file has appeared that is not whole yet, before a kill, at most; the writing takes about as long."""


def wait_for_writing(process: subprocess.Popen[str], weights: Path, since: float) -> None:
    """Wait until the run begins to write a checkpoint."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None and not unfinished(weights, since):
        time.sleep(0.001)


def unfinished(weights: Path, since: float) -> list[Path]:
    """Return the files that were begun since a time and are not whole; older ones are left from an earlier kill."""
    found = []
    for path in weights.glob(f"*{PART}"):
        with contextlib.suppress(FileNotFoundError):  # it has just become whole
            if path.stat().st_mtime > since:
                found.append(path)
    return found


def epochs_of(log: Path) -> list[int]:
    """Return the epochs that a run has recorded."""
    return [e["epoch"] for e in read_events(log) if e["event"] == "epoch"] if log.exists() else []


def begun_at(log: Path) -> int:
    """Return how many epochs the newest start of a run took for completed."""
    return [e["epochs_before"] for e in read_events(log) if e["event"] == "start"][-1]


def wait_for_training(process: subprocess.Popen[str], log: Path, starts: int) -> bool:
    """Wait until the run has recorded that it has started once more."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        if log.exists() and sum(e["event"] == "start" for e in read_events(log)) > starts:
            return True
        time.sleep(0.1)
    return False


def damaged(weights: Path) -> list[str]:
    """Return the files that cannot be read or are not finite; what is there has to be whole."""
    bad = []
    for path in sorted(weights.glob("*")):
        try:
            if path.suffix == ".pt":
                content = torch.load(path, weights_only=False)
                model = content["ema"] or content["model"]
                if not all(bool(v.isfinite().all()) for v in model.state_dict().values()):
                    bad.append(path.name)
            elif path.suffix == ".safetensors":
                read_state(path)
        except Exception as error:  # noqa: BLE001 - whatever it is, the file is not what it should be
            bad.append(f"{path.name}: {type(error).__name__}")
    return bad


def chain(number: int, kills: int, seed: int) -> list[dict[str, Any]]:
    """Kill one run ``kills`` times; returns a row for each."""
    rows: list[dict[str, Any]] = []
    chance = random.Random(seed * 1000 + number)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run, log = folder / "run", folder / "run" / "guard.jsonl"
        done = 0
        for i in range(kills):
            last = run / "weights" / "last.pt"
            starts = sum(e["event"] == "start" for e in read_events(log)) if last.exists() else 0
            if not last.exists():  # killed before its first epoch was over: it begins again, with a new log
                log.unlink(missing_ok=True)
            since = time.time()
            process = start(folder, last if last.exists() else None)
            began = wait_for_training(process, log, starts)
            resumed_at = begun_at(log) if began else 0
            if began and i % 2:
                wait_for_writing(process, run / "weights", since)
                time.sleep(chance.uniform(0.0, WRITING))
            elif began:
                time.sleep(chance.uniform(0.0, LONGEST))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            bad = damaged(run / "weights")
            litter = len(unfinished(run / "weights", since))
            epochs = epochs_of(log)
            row = {"chain": number, "kill": i, "began": began, "damaged": bad, "inside a save": litter > 0}
            rows.append(
                {**row, "epochs before": done, "resumed at": resumed_at, "epochs after": max(epochs, default=0)}
            )
            if not began:
                rows[-1]["said"] = (folder / "out.txt").read_text()[-500:]
                break
            done = max(epochs, default=0)
    return rows


def main() -> None:
    """Run the chains and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    share = -(-options.kills // options.chains)
    with ThreadPoolExecutor(options.chains) as pool:
        chains = list(pool.map(lambda number: chain(number, share, options.seed), range(options.chains)))
    kills = [row for rows in chains for row in rows]
    summary = {
        "kills": len(kills),
        "resumable": sum(row["began"] for row in kills),
        "damaged checkpoints": sum(len(row["damaged"]) for row in kills),
        "inside a save": sum(row["inside a save"] for row in kills),
        "epochs lost at most": max(lost(rows) for rows in chains),
        "epochs trained": sum(max(row["epochs after"] for row in rows) for rows in chains),
    }
    show("SIGKILL and resume", [summary])
    for row in kills:
        if not row["began"] or row["damaged"]:
            print(json.dumps(row))
    print(
        keep("kills", [summary], {"kills": options.kills, "chains": options.chains, "seed": options.seed}, options.json)
    )


def lost(rows: list[dict[str, Any]]) -> int:
    """Return the most epochs that a resume had to do again: those that were recorded and not saved."""
    return max((max(row["epochs before"] - row["resumed at"], 0) for row in rows[1:]), default=0)


if __name__ == "__main__":
    main()
