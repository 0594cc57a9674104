"""A stand-in for ``yolo-stable train`` that takes milliseconds: it writes what a run writes, resumes, and obeys signals.

What becomes of a run is in the file that STUB_PLAN names: its name to ``{"fate": ..., "seconds": ...}``. The fates: ``done``,
``halted``, ``failed``, ``refused``, ``killed`` (by SIGKILL), ``deaf`` (obeys no signal). Each start adds a line to the file that
STUB_STARTS names.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path


def train() -> None:
    """Do what is planned for the run that the words name."""
    words = {word.partition("=")[0]: word.partition("=")[2] for word in sys.argv[1:] if "=" in word}
    resumed = words.get("resume") == "True"
    folder = Path(words["model"]).parent.parent if resumed else Path(words["project"]) / words["name"]
    plan = json.loads(Path(os.environ["STUB_PLAN"]).read_text()).get(folder.name, {})
    last = folder / "weights" / "last.pt"
    saved = last.read_text().split() if resumed else ["0"]
    before = int(saved[0])
    words |= {
        word.partition("=")[0]: word.partition("=")[2] for word in saved[1:]
    }  # the rest of a resumed run's arguments is in its checkpoint
    with open(os.environ["STUB_STARTS"], "a") as starts:
        starts.write(f"{folder.name} {before}\n")
    fate, seconds, epochs = plan.get("fate", "done"), plan.get("seconds", 0.0), plan.get("epochs", 3)
    if fate == "refused" or (resumed and plan.get("damaged")):
        print("yolo-stable: train: data set gone.yaml is not there.", file=sys.stderr)
        sys.exit(2)
    last.parent.mkdir(parents=True, exist_ok=True)

    def event(kind: str, epoch: int, **details: object) -> None:
        with open(folder / "guard.jsonl", "a") as log:
            log.write(json.dumps({"schema": 1, "event": kind, "time": time.time(), "epoch": epoch, **details}) + "\n")

    def leave(number: int, frame: object) -> None:
        event("end", epoch, status="interrupted", message=f"{signal.Signals(number).name}: saved.")
        print(f"yolo-stable: {signal.Signals(number).name}: saved.", file=sys.stderr)
        sys.exit(128 + number)

    epoch = before + 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN if fate == "deaf" else leave)
    event("start", 0, epochs_before=before)
    csv = folder / "results.csv"
    if not csv.exists():
        csv.write_text("epoch,time,train/box_loss,train/cls_loss,metrics/mAP50(B),metrics/mAP50-95(B)\n")
    rate, seed = float(words.get("lr0", 0.01)), int(words.get("seed", 0))
    level = plan.get("level", 10 * rate) + 0.01 * seed
    began = time.time()
    for epoch in range(before + 1, epochs + 1):
        until = time.time() + seconds
        while time.time() < until:
            time.sleep(0.01)
        event("rejection", epoch, batch=1)
        event("epoch", epoch, norm_mean=2.0 * epoch, norm_max=3.0 * epoch)
        score = level * epoch / epochs
        with open(csv, "a") as rows:
            rows.write(f"{epoch},{time.time() - began},{1 / epoch},{2 / epoch},{2 * score},{score}\n")
        last.write_text(f"{epoch} lr0={rate} seed={seed}")
        print(f"epoch {epoch}")
        if fate == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fate in ("halted", "failed"):
            event("end", epoch, status=fate, message="too many rejections")
            print(f"yolo-stable: Training {fate}: too many rejections", file=sys.stderr)
            sys.exit(1)
    event("end", epochs, status="done", message="")


if __name__ == "__main__":
    train()
