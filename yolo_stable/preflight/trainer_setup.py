"""Trainer set-up: Ultralytics' own trainer, ready for a training that does not begin."""

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
from ..train.request import TrainRequest
from .quiet import Said
from .stage import StageOutcome
from .stage_runner import failure

OURS = {"exist_ok": True, "plots": False, "save": False, "cache": False, "compile": False, "verbose": False}
"""Arguments that decide what is written and shown, or how long the set-up takes; none is judged."""
DATA_FIX = f"See which files, and what to do about each:\n{CHECK}"
FIX = "Correct what Ultralytics names; --traceback shows where it was raised."


class _Arrived(BaseException):
    """Ends ``YOLO.train`` where training would begin."""


class TrainerSetup:
    """A trainer in a folder that is removed afterwards."""

    def __init__(self, request: TrainRequest, folder: Path) -> None:
        self.request, self.folder = request, folder
        self.trainer: Any = None

    def build(self, said: Said) -> StageOutcome:
        """Let Ultralytics make trainer, model, data sets, loaders, optimizer, EMA and validator."""
        arguments = {**self.request.arguments, **OURS, "project": str(self.folder), "name": "preflight"}
        arguments["guard"] = {**(arguments.get("guard") or {}), "incidents": None, "snapshot_every": None}
        several = devices_of(arguments.get("device"))
        if len(several) > 1:
            arguments["device"] = several[0]
            if isinstance(batch := arguments.get("batch", 16), int) and batch > 0:
                arguments["batch"] = max(batch // len(several), 1)
        try:
            self.request.model.train(trainer=_waiting(self.request.trainer), **arguments)
        except _Arrived:
            self.trainer = self.request.model.trainer
        assert self.trainer is not None
        self.trainer.run_log = RunLog(self.trainer.save_dir, resumed=False, write=False)  # there is no run to log
        try:
            with contextlib.suppress(UnhealthyStartError):  # all is set up; the parameters stage names them
                self.trainer._setup_train()
        except Exception as error:  # noqa: BLE001 - Ultralytics' objection to the set-up, of whatever class
            return failure(error, DATA_FIX if re.search("label|image|dataset", str(error)) else FIX)
        return self._described(said, len(several))

    def _described(self, said: Said, devices: int) -> StageOutcome:
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
        found = StageOutcome(figure=figure, details=details)
        if files:
            reason = f"Ultralytics' scan leaves out or repairs {len(files)} images: {files[0][:200]}"
            return found.warn(reason, DATA_FIX)
        return found

    def _was_auto(self) -> bool:
        plan = self.request.arguments.get("optimizer", "auto")
        return str(plan).lower() == "auto" and self.trainer.plan.preset is None


@contextlib.contextmanager
def trainer_setup(request: TrainRequest) -> Iterator[TrainerSetup]:
    """Yield a set-up in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="yolo-stable-preflight-", ignore_cleanup_errors=True) as folder:
        try:
            yield TrainerSetup(request, Path(folder))
        finally:
            unset_deterministic()  # as at the end of a training


def _waiting(base: Any) -> Any:
    """Return a trainer's class that stops where training would begin, and calls no callbacks."""

    class Waiting(base):
        def run_callbacks(self, event: str) -> None:
            """Loggers on the network would open a run."""

        def train(self) -> None:
            raise _Arrived

    Waiting.__name__ = Waiting.__qualname__ = base.__name__
    return Waiting
