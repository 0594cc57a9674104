"""Folders of runs written by hand, as the guard and Ultralytics write them, for the tests of the report."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

EVIL = "<script>document.title='pwned'</script>.jpg"
"""A file name that must stay text. (A slash is no part of a file name; the closing tag has one all the same.)"""
ITEMS = ("box_loss", "cls_loss", "dfl_loss")
HEAD = [
    "epoch", "time", *(f"train/{name}" for name in ITEMS), "metrics/precision(B)", "metrics/recall(B)",
    "metrics/mAP50(B)", "metrics/mAP50-95(B)", *(f"val/{name}" for name in ITEMS), "lr/pg0", "lr/pg1", "lr/pg2",
]  # fmt: skip
ARGS = {"task": "detect", "mode": "train", "model": "yolo11n.pt", "data": "data.yaml", "epochs": 6, "batch": 16,
        "imgsz": 640, "device": "cpu", "optimizer": "SGD", "lr0": 0.005, "mosaic": 1.0}  # fmt: skip
VERSIONS = {"torch": "2.14.1", "ultralytics": "8.4.190", "yolo-stable": "0.1.0", "python": "3.11.7"}


class Log:
    """Writes events one after the other, ten seconds apart."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.clock = 1_700_000_000.0

    def add(self, event: str, epoch: int = 1, **details: Any) -> Log:
        self.clock += 10
        self.lines.append(json.dumps({"schema": 1, "event": event, "time": self.clock, "epoch": epoch, **details}))
        return self

    def start(self, before: int = 0, **details: Any) -> Log:
        facts = {"versions": VERSIONS, "guard": {"max_norm": 10.0}, "preset": None, "optimizer": "SGD"}
        return self.add(
            "start", before, **{**facts, "precision": "float32", "device": "cpu", "epochs_before": before, **details}
        )

    def steps(self, epoch: int, step: int, seed: int = 0, **details: Any) -> Log:
        return self.add("steps", epoch, **{**measured(step, seed), **details})

    def rejection(
        self, epoch: int, batch: int, step: int, files: Iterable[str] = ("a.jpg", "b.jpg"), **details: Any
    ) -> Log:
        facts = {
            "batch": batch,
            "step": step,
            "what": "micro_batch",
            "reason": "loss nan, box_loss nan",
            "culprits": [],
        }
        return self.add(
            "rejection", epoch, **{**facts, "loss": "nan", "items": {}, "norm": None, "files": list(files), **details}
        )

    def incident(self, epoch: int, file: str = "a.jpg", **details: Any) -> Log:
        answer = {
            "kind": "micro_batch", "folder": None, "reproduced": True, "bitwise": True, "cause": "data", "phase": "data",
            "module": "", "op": "", "samples": [{"path": file, "index": 3, "tile": None, "label_row": None}],
            "evidence": {"what": "has NaN pixels", "why": "3 pixels are not finite"}, "next": f"Repair or remove {file}",
        }  # fmt: skip
        return self.add("incident", epoch, **{**answer, **details})

    def escalation(self, epoch: int, step: int, to_step: int, **details: Any) -> Log:
        facts = {
            "rung": "roll_back",
            "reason": "training diverges",
            "culprits": [],
            "lr_factor": 0.5,
            "precision": None,
        }
        return self.add("climb", epoch, step=step, to_step=to_step, **{**facts, "lost": step - to_step, **details})

    def epoch(self, epoch: int, applied: int, **details: Any) -> Log:
        facts = {"applied": applied, "clipped": 3, "rejected": 0, "norm_mean": 8.0, "norm_max": 30.0}
        return self.add("epoch", epoch, **{**facts, "loss": {name: 2.0 for name in ITEMS}, **details})

    def end(self, epoch: int, status: str = "done", message: str = "", **counts: int) -> Log:
        return self.add(
            "end",
            epoch,
            status=status,
            message=message,
            counts={"micro_batches": 1200, "applied": 600, "clipped": 60, **counts},
        )

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "guard.jsonl").write_text("".join(line + "\n" for line in self.lines))
        return folder


def measured(step: int, seed: int = 0) -> dict[str, Any]:
    """Return what a ``steps`` line says of a step in an ordinary run."""
    noise = random.Random(step * 31 + seed)
    level = 1.2 + 3 * math.exp(-step / 250)
    return {
        "batch": step % 100 + 1,
        "step": step,
        "loss": {
            name: round(level * share * noise.uniform(0.85, 1.2), 4)
            for name, share in zip(ITEMS, (1.0, 0.7, 0.5), strict=True)
        },
        "norm": round(6 * math.exp(noise.gauss(0, 0.5)) * (1 + 4 * math.exp(-step / 60)), 4),
        "clip": min(1.0, round(noise.uniform(0.6, 1.5), 3)),
        "lr": [0.005 * (1 - step / 700), 0.005 * (1 - step / 700), 0.02 * max(0.25, 1 - step / 200)],
        "scale": 65536.0 if step < 300 else 32768.0,
        "seconds": round(noise.uniform(0.2, 0.3), 4),
        "memory": 2_000_000_000 + step * 1000,
        "layers": [["model.22.cv3.0", round(noise.uniform(0.3, 0.5), 3)], ["model.0.conv", 0.1]],
    }


def write_results(
    folder: Path, maps: Iterable[float], *, losses: Iterable[float | str] = (), guard: bool = False
) -> Path:
    """Write a ``results.csv`` with a row for each mAP50-95."""
    folder.mkdir(parents=True, exist_ok=True)
    maps, losses = list(maps), list(losses)
    extra = ["guard/grad_norm", "guard/grad_norm_max", "guard/clip_share", "guard/rejected"] if guard else []
    lines = [",".join([*HEAD, *extra])]
    for i, value in enumerate(maps):
        loss = losses[i] if i < len(losses) else round(4 - 0.4 * i, 4)
        row = [i + 1, 60.5 * (i + 1), loss, 2.0, 1.5, 0.6, 0.5, min(1.0, value * 1.4), value, 3.1 - 0.2 * i, 2.1, 1.6]
        lines.append(
            ",".join(map(str, [*row, 0.005 - 0.0005 * i, 0.005, 0.01, *([8.0, 30.0, 0.1, 0] if guard else [])]))
        )
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_args(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "args.yaml").write_text(yaml.safe_dump({**ARGS, **changes}))
    return folder


def write_bundle(folder: Path, number: int = 1, *, side: int = 320) -> Path:
    """Write the folder of an incident with a picture; return it."""
    bundle = folder / "incidents" / f"{number:04d}"
    bundle.mkdir(parents=True)
    (bundle / "incident.json").write_text("{}")
    picture, buffer = Image.effect_noise((side, side), 80).convert("RGB"), io.BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    (bundle / "preview.jpg").write_bytes(buffer.getvalue())
    return bundle


def stock_run(folder: Path) -> Path:
    write_results(folder, (0.1, 0.22, 0.31, 0.37, 0.4, 0.41))
    return write_args(folder)


def guarded_run(folder: Path, *, seed: int = 0, file: str = EVIL) -> Path:
    """Write a run of six epochs of 100 steps with all that can happen to one, its files named so that they must be escaped."""
    log = Log().start()
    write_bundle(folder)
    for step in range(10, 331, 10):
        epoch = (step - 1) // 100 + 1
        log.steps(epoch, step, seed)
        if step == 130:
            log.rejection(epoch, 33, step, [f"images/{file}", "images/ok.jpg"])
            log.incident(epoch, f"images/{file}", folder="/elsewhere/run/incidents/0001")
        if step == 160:
            log.add(
                "warning",
                epoch,
                what="norm rising",
                message="The gradient norm has doubled. Lower lr0.",
                value=20,
                limit=10,
                step=160,
            )
        if step == 190:
            log.rejection(epoch, 91, step, [f"images/{file}"])
            log.incident(epoch, f"images/{file}")
            log.add("left_out", epoch, path=f"images/{file}")
        if step == 260:
            log.escalation(epoch, 260, 240, culprits=["model/model.4.conv.weight"])
            found = {"what": "weight was nan"}
            state = {"cause": "weights", "phase": "state", "module": "model.4.conv", "op": "", "samples": []}
            replay = {"reproduced": False, "bitwise": False, "next": "Ask: yolo-stable validate"}
            log.add("incident", epoch, kind="roll_back", folder=None, evidence=found, **state, **replay)
        if step % 100 == 0:
            log.epoch(epoch, 100, rejected=2 if epoch == 2 else 0)
    log.start(3)  # was killed at step 330 and goes on from the end of epoch 3, step 300
    for step in range(310, 601, 10):
        epoch = (step - 1) // 100 + 1
        log.steps(epoch, step, seed)
        if step % 100 == 0:
            log.epoch(epoch, 100)
    log.add("checkpoint_kept", 5, culprits=["ema/model.0.conv.weight"])
    log.add("validation_not_finite", 5, names=["val/box_loss"])
    log.end(6).write(folder)
    write_results(folder, (0.15, 0.3, 0.42, 0.5, 0.56, 0.55), guard=True)
    write_args(folder, guard={"max_norm": 10.0, "patience": 32}, preset="stable")
    (folder / "summary.json").write_text(json.dumps({"schema": 1, "status": "done"}))
    return folder
