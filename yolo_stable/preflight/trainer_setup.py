"""Trainer set-up: Ultralytics' own trainer as for a training, which does not begin."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultralytics.utils.torch_utils import unset_deterministic

from .._shared.shell_text import CHECK
from ..errors import UnhealthyStartError
from ..runlog.writer import RunLog
from ..train.device_gate import devices_of
from ..train.run import Ready
from .flight import failure
from .quiet import Said
from .stage import Outcome, Verdict

OURS = {"exist_ok": True, "plots": False, "save": False, "cache": False, "compile": False, "verbose": False}
"""Arguments that decide what is written and shown, or how long it takes to begin; nothing of them is judged."""


DATA_FIX = f"Which files, and what to do about each:\n{CHECK}"
FIX = "Mend what Ultralytics names there; --traceback shows where it was raised."


class _Arrived(BaseException):
    """Ends ``YOLO.train`` where training would begin; what comes before is Ultralytics' own."""


class Standing:
    """A trainer in a folder that is removed afterwards.

    Args:
        ready: The checked call.
        folder: For the run.
    """

    def __init__(self, ready: Ready, folder: Path) -> None:
        self.ready, self.folder = ready, folder
        self.trainer: Any = None

    def build(self, said: Said) -> Outcome:
        """Let Ultralytics make trainer, model, data sets, loaders, optimizer, EMA and validator.

        Args:
            said: What it logs meanwhile.
        """
        arguments = {**self.ready.arguments, **OURS, "project": str(self.folder), "name": "preflight"}
        arguments["guard"] = {**(arguments.get("guard") or {}), "incidents": None, "snapshot_every": None}
        several = devices_of(arguments.get("device"))
        if len(several) > 1:
            arguments["device"] = several[0]
            if isinstance(batch := arguments.get("batch", 16), int) and batch > 0:
                arguments["batch"] = max(batch // len(several), 1)
        try:
            self.ready.model.train(trainer=_waiting(self.ready.trainer), **arguments)
        except _Arrived:
            self.trainer = self.ready.model.trainer
        assert self.trainer is not None
        self.trainer.run_log = RunLog(
            self.trainer.save_dir, resumed=False, write=False
        )  # there is no run to keep a log of
        try:
            with contextlib.suppress(UnhealthyStartError):  # everything stands; the stage of the parameters names them
                self.trainer._setup_train()
        except Exception as error:  # noqa: BLE001 - Ultralytics' objection to the set-up, of whatever class
            return failure(error, DATA_FIX if re.search("label|image|dataset", str(error)) else FIX)
        return self._told(said, len(several))

    def _told(self, said: Said, devices: int) -> Outcome:
        trainer = self.trainer
        train, val = len(trainer.train_loader.dataset), len(trainer.test_loader.dataset)
        args, kind = trainer.args, type(trainer.optimizer).__name__
        auto = " (chosen by optimizer=auto)" if self._was_auto() else ""
        share = f" on one of {devices} devices" if devices > 1 else ""
        figure = (
            f"{Path(str(args.model)).name}, {train} train and {val} val images, {trainer.data['nc']} classes, imgsz {args.imgsz},"
            f" batch {trainer.batch_size}{share} x {trainer.accumulate} accumulated, {kind} lr0 {args.lr0:g}{auto}"
        )
        files = said.about_files()
        details = {
            "train_images": train, "val_images": val, "classes": int(trainer.data["nc"]), "imgsz": args.imgsz,
            "batch": trainer.batch_size, "accumulate": trainer.accumulate, "optimizer": kind, "lr0": float(args.lr0),
            "amp": bool(trainer.amp), "files": files[:50],
        }  # fmt: skip
        if files:
            return Outcome(
                verdict=Verdict.WARN,
                figure=figure,
                reason=f"Ultralytics' scan leaves out or mends {len(files)} images: {files[0][:200]}",
                fix=DATA_FIX,
                details=details,
            )
        return Outcome(figure=figure, details=details)

    def _was_auto(self) -> bool:
        plan = self.ready.arguments.get("optimizer", "auto")
        return str(plan).lower() == "auto" and self.trainer.plan.preset is None


@contextlib.contextmanager
def standing(ready: Ready) -> Iterator[Standing]:
    """Make room for a trainer, and leave nothing of it."""
    with tempfile.TemporaryDirectory(prefix="yolo-stable-preflight-", ignore_cleanup_errors=True) as folder:
        try:
            yield Standing(ready, Path(folder))
        finally:
            unset_deterministic()  # as at the end of a training


def _waiting(base: Any) -> Any:
    """Return a trainer's class that waits where training would begin, and tells nobody about it."""

    class Waiting(base):
        def run_callbacks(self, event: str) -> None:
            """Loggers on the network would open a run."""

        def train(self) -> None:
            raise _Arrived

    Waiting.__name__ = Waiting.__qualname__ = base.__name__
    return Waiting
