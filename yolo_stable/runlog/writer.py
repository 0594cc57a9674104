"""Run log: lines on the terminal, ``guard.jsonl`` and ``summary.json``."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from itertools import chain, islice
from pathlib import Path
from typing import Any

from .._shared.atomic_file import reason, write_whole
from .._shared.strict_json import strict
from ..autopsy.report import AutopsyReport
from ..guard import Climb, Counts, Decision
from ..presets.run_plan import RunPlan
from .epoch_metrics import EpochTelemetry
from .events import SCHEMA, Event, EventLog
from .format import name_files, what_was_done
from .step_record import StepRecord
from .summary import Summary
from .warning_rules import Caution

LINES_PER_EPOCH = 20
"""Rejections printed in an epoch; further ones are counted and recorded, not printed."""
FILES_KEPT = 1024
"""Image files recorded of a window."""


class RunLog:
    """Records what the guard did in one run.

    Args:
        folder: The run's folder.
        resumed: Append to the log that is there.
        write: False on ranks that keep no files.
    """

    def __init__(self, folder: Path, *, resumed: bool, write: bool) -> None:
        self.folder = folder
        self._log = EventLog(folder / "guard.jsonl", append=resumed) if write else None
        self._epoch = 0
        self._printed = 0
        self._batch: Iterable[str] = ()
        self._window: list[Iterable[str]] = []
        self._summary = Summary()
        self._saved: tuple[Path, int] | None = None
        self.saved_step = 0
        self._untrained = False
        self._injected: tuple[str, ...] = ()
        if resumed and write:
            self._summary.read(folder / "guard.jsonl")

    def start(self, plan: RunPlan, **setup: str | int) -> None:
        """Record the set-up before the first step."""
        versions = {
            name: metadata.version(name) for name in ("torch", "ultralytics", "yolo-stable") if _installed(name)
        }
        versions["python"] = platform.python_version()
        on_record = {"injected": list(plan.injected)} if plan.injected else {}
        self._injected = plan.injected
        self._write("start", {"versions": versions, **plan.to_dict(), **on_record, **setup})

    def begin_epoch(self) -> None:
        """Start counting printed lines anew."""
        self._printed = 0

    def batch_files(self, files: Iterable[str]) -> None:
        """Remember the image files of the micro-batch that is about to run; they are looked at only when it is rejected."""
        self._batch = files
        self._window.append(files)

    def window_closed(self) -> None:
        """Forget the files of a window that was applied or rejected."""
        self._window = []

    def rejection(self, decision: Decision, where: tuple[int, int, int, int], step: int) -> str:
        """Record a rejection.

        Args:
            decision: The verdict and its evidence.
            where: Epoch (from 1), epochs in all, batch (from 1), batches in the epoch.
            step: Optimizer steps applied so far.

        Returns:
            One line for the terminal; empty when this epoch has printed enough of them.
        """
        epoch, epochs, batch, batches = where
        what = decision.verdict.value.removeprefix("reject_")
        named = self._batch if what == "micro_batch" else chain.from_iterable(self._window)
        files = [str(file) for file in islice(named, FILES_KEPT)]
        self._epoch = epoch
        self._write(
            "rejection",
            {
                "batch": batch,
                "step": step,
                "what": what,
                "reason": decision.reason,
                "culprits": decision.culprits,
                "loss": decision.loss,
                "items": dict(decision.items),
                "norm": decision.norm,
                "files": files,
            },
        )
        self._printed += 1
        if self._printed > LINES_PER_EPOCH:
            return ""
        place = f" (first: {decision.culprits[0]})" if decision.culprits else ""
        more = "; further ones in this epoch are not printed" if self._printed == LINES_PER_EPOCH else ""
        return (
            f"epoch {epoch}/{epochs}, batch {batch}/{batches}: {what.replace('_', '-')} rejected: "
            f"{decision.reason}{place}. {name_files(files)}{more}"
        )

    def steps(self, record: StepRecord, epoch: int) -> None:
        """Record the numbers of an applied step."""
        self._epoch = epoch
        self._write("steps", record.details())

    def warning(self, caution: Caution, epoch: int, step: int) -> None:
        """Record that somebody should look at the run."""
        self._epoch = epoch
        about = {"what": caution.what, "message": caution.message, "value": caution.value, "limit": caution.limit}
        self._write("warning", {**about, "step": step})

    def epoch(self, epoch: int, telemetry: EpochTelemetry) -> None:
        """Record what an epoch came to."""
        self._epoch = epoch
        steps = telemetry.applied
        self._write(
            "epoch",
            {
                "applied": steps,
                "clipped": telemetry.clipped,
                "rejected": telemetry.rejected,
                "norm_mean": telemetry.norm_mean if steps else None,
                "norm_max": telemetry.norm_max if steps else None,
                "loss": telemetry.loss,
            },
        )

    def climb(self, climb: Climb, epoch: int) -> str:
        """Record that more than a batch was undone, and return a line for the terminal."""
        self._epoch = epoch
        details = {
            "rung": climb.rung.value,
            "reason": climb.reason,
            "culprits": climb.culprits,
            "step": climb.step,
            "to_step": climb.to_step,
            "lost": climb.lost,
            "lr_factor": climb.lr_factor,
            "precision": climb.precision or None,
        }
        self._write("climb", details)
        return f"epoch {epoch}: {what_was_done(climb)}. Reason: {climb.reason}."

    def incident(
        self, kind: str, report: AutopsyReport, epoch: int, folder: Path | None, injected: Sequence[str] = ()
    ) -> str:
        """Record what was found out about an incident, and return a line for the terminal.

        Args:
            kind: What kind of rejection, or which rung.
            report: What the autopsy found.
            epoch: In which it was, from 1.
            folder: Where it was written in full; None: it was not.
            injected: Faults put in on purpose that have fired just now.
        """
        self._epoch = epoch
        answer = {key: value for key, value in report.to_json().items() if key != "schema"}
        on_record = {"injected": list(injected)} if injected else {}
        self._write("incident", {"kind": kind, "folder": str(folder) if folder else None, **answer, **on_record})
        where = f" Bundle: {folder}" if folder else ""
        return f"{report.headline()}.{where} Next: " + "\n    ".join(report.next.split("\n"))

    def left_out(self, path: str) -> None:
        """Record that an image is left out of the rest of the run."""
        self._write("left_out", {"path": path})

    def unreadable(self, path: str, why: str, split: str, lost: int, images: int) -> None:
        """Record that an image cannot be read any more, and is left out.

        Args:
            path: The file.
            why: What happened to it.
            split: ``train`` or ``val``.
            lost: How many files of these images are lost by now.
            images: How many there are.
        """
        self._write("unreadable", {"path": path, "why": why, "split": split, "lost": lost, "images": images})

    def validation_not_finite(self, epoch: int, names: list[str]) -> None:
        """Record that a validation of healthy weights was not finite."""
        self._epoch = epoch
        self._write("validation_not_finite", {"names": names})

    def checkpoint_kept(self, epoch: int, culprits: tuple[str, ...]) -> None:
        """Record that a save was refused."""
        self._epoch = epoch
        self._write("checkpoint_kept", {"culprits": culprits})

    def saved(self, path: Path, epoch: int, step: int = 0) -> None:
        """Remember the newest healthy checkpoint, and how many optimizer steps of this run are in it."""
        self._saved = path, epoch
        self.saved_step = step

    def has_saved(self, epoch: int) -> bool:
        """Return whether the newest healthy checkpoint is of this epoch (from 1)."""
        return self._saved is not None and self._saved[1] == epoch

    @property
    def checkpoint(self) -> Path | None:
        """The newest healthy checkpoint."""
        return None if self._saved is None else self._saved[0]

    def nothing_learned(self) -> None:
        """Forget the checkpoints: they hold the weights that the run began with."""
        self._saved, self._untrained = None, True

    def good_checkpoint(self) -> str:
        """Return a sentence that names the newest healthy checkpoint."""
        if self._untrained:
            return "There is no good checkpoint: what was saved are the weights that the run began with."
        if self._saved is None:
            return "No checkpoint was written in this run."
        return f"The good checkpoint is {self._saved[0]} (epoch {self._saved[1]})."

    def finish(self, status: str, message: str, counts: Counts) -> list[tuple[str, str]]:
        """Record the end, write ``summary.json`` and return the rows of the closing table."""
        self._write("end", {"status": status, "message": message, "counts": counts.to_dict()})
        summary = {
            "schema": SCHEMA,
            "status": status,
            "message": message,
            "epochs": self._epoch,
            "counts": counts.to_dict(),
            "checkpoint": str(self.checkpoint) if self.checkpoint else None,
            **self._summary.to_dict(),
            **({"injected": list(self._injected)} if self._injected else {}),
        }
        rows = [
            ("steps applied", f"{counts.applied}, of them clipped: {counts.clipped}"),
            ("rejected", f"micro-batches: {counts.rejected_micro_batches}, windows: {counts.rejected_windows}"),
            *self._summary.rows(self.folder),
        ]
        if self._injected:
            rows.append(("injected", f"on purpose: {', '.join(self._injected)}"))
        rows += self._summary.listed()
        if self._log is not None:
            self._log.close()
            problems = [self._log.problem, _write_summary(self.folder / "summary.json", summary)]
            lost = "; ".join(problem for problem in problems if problem)
            rows.append(("details", lost or f"{self.folder / 'summary.json'}, guard.jsonl"))
        return rows

    def _write(self, event: str, details: dict[str, Any]) -> None:
        self._summary.add({"event": event, "epoch": self._epoch, **details})
        if self._log is not None:
            self._log.write(Event(event=event, epoch=self._epoch, details=details))


def _installed(name: str) -> bool:
    return any(True for _ in metadata.distributions(name=name))


def _write_summary(path: Path, content: dict[str, Any]) -> str | None:
    """Write JSON whole; return what went wrong, if anything did."""
    try:
        write_whole(path, (json.dumps(strict(content), indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        return f"{path}: {reason(error)}"
    return None
