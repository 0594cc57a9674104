"""Memory of a rejection: what autograd holds in the rejected batch, during its autopsy and afterwards, against a clean run.

    python -m benchmarks.rejections [--model yolo11n.yaml] [--imgsz 160] [--json F]

One case for each kind of bad batch, with incidents and without. Saved tensors are counted by hooks of autograd, each piece of
memory once; the clean figure is the largest of any batch in the same run without the fault. The bar is 1.05 times that.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ultralytics.utils.tal import TaskAlignedAssigner

from yolo_stable.chaos import NAN, Fault, LayerFault
from yolo_stable.errors import TrainingHaltedError
from yolo_stable.trainer.trainers import TRAINERS

from .contenders import quiet
from .narrow import settings
from .record import keep, show
from .saved_tensors import SavedTensors

AT = 2
"""The batch, from 0, with the fault: the ones before it have been stepped on."""
CLEAN, REJECTED, AUTOPSY, LATER = "clean", "rejected", "autopsy", "later"


class RaisingLoss:
    """Boxes that are assigned to predictions are NaN in one batch: the loss raises before the guard is asked."""

    def on(self, base: Any) -> Any:
        """Return a subclass of a trainer's class with this fault in it."""
        assigner: Any = TaskAlignedAssigner
        own = assigner.get_targets
        armed = SimpleNamespace(fired=0)

        def broken(*args: Any) -> Any:
            armed.fired += 1
            labels, boxes, scores = own(*args)
            return labels, boxes * NAN, scores

        class Raising(base):
            chaos = armed

            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                assigner.get_targets = broken if self.batch_number == AT + 1 else own
                return super().preprocess_batch(batch)

            def train(self) -> Any:
                try:
                    return super().train()
                finally:
                    assigner.get_targets = own

        return Raising


KINDS: dict[str, Any] = {
    "NaN pixel": Fault("pixel", NAN, at=(AT,)),
    "NaN loss": Fault("loss", NAN, at=(AT,)),
    "a jump of running statistics": Fault("pixel", 1e8, at=(AT,)),
    "a label of no class": Fault("label", 99, at=(AT,)),
    "a loss that raised": RaisingLoss(),
    "NaN gradient": Fault("gradient", NAN, at=(AT,)),
    "a layer, forward": LayerFault("divide", "model.4.cv1.conv", at=(AT,)),
    "a layer, backward": LayerFault("root", "model.4.cv1.conv", at=(AT,)),
    "NaN weight, rolled back": Fault("weight", NAN, at=(AT,)),
    "NaN losses until the halt": Fault("loss", NAN, since=AT),
}
"""A fault for each kind of rejection."""


def trace(fault: Any, overrides: dict[str, Any], task: str = "detect") -> SavedTensors:
    """Train with a fault, or with None, and return what was saved in which section.

    Raises:
        RuntimeError: The fault never fired.
    """
    held = SavedTensors()
    kind: Any = TRAINERS[task]

    class Counted(kind):
        seen = 0

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            faulty = fault is not None and Counted.seen >= AT
            held.begin((REJECTED if Counted.seen == AT else LATER) if faulty else CLEAN)
            Counted.seen += 1
            return super().preprocess_batch(batch)

    trainer: Any = (Counted if fault is None else fault.on(Counted))(overrides=overrides)
    service = trainer.services.incidents
    look_into = service.look_into

    def watched(decision: Any) -> None:
        held.begin(AUTOPSY)
        look_into(decision)
        held.begin(LATER)

    service.look_into = watched
    with held:
        try:
            trainer.train()
        except TrainingHaltedError:
            if fault is None:
                raise
    if fault is not None and not trainer.chaos.fired:
        raise RuntimeError("The fault never fired.")
    return held


def measure(kind: str, clean: SavedTensors, overrides: dict[str, Any], task: str = "detect") -> dict[str, Any]:
    """Return a row: what was held at most, in MiB, and times that of the clean run."""
    held = trace(KINDS[kind], overrides, task)
    most = clean.peak(CLEAN)
    parts = {name: held.peak(name) / most for name in (REJECTED, AUTOPSY, LATER)}
    return {"kind": kind, "clean MiB": most / 2**20, **parts}


def main() -> None:
    """Run all kinds, with incidents and without."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="", help="default: the narrow detector")
    parser.add_argument("--imgsz", type=int, default=64)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    quiet()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        named = {"model": options.model} if options.model else {}
        common = {**named, "imgsz": options.imgsz, "epochs": 1, "val": False, "save": False}
        overrides = settings(Path(folder), **common)
        clean = trace(None, {**overrides, "name": "clean"})
        for incidents in (True, False):
            guard = {"report": False} if incidents else {"report": False, "incidents": None}
            for kind in KINDS:
                row = measure(kind, clean, {**overrides, "name": "bad", "guard": guard})
                rows.append({"incidents": "yes" if incidents else "no", **row})
                print(rows[-1], flush=True)
    show("saved tensors: MiB of a clean run, and times that", rows)
    print(keep("rejections", rows, {"model": options.model or "narrow", "imgsz": options.imgsz}, options.json))


if __name__ == "__main__":
    main()
