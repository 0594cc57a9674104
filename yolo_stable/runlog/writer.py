"""Run log: lines on the terminal, ``guard.jsonl`` and ``summary.json``."""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from .._shared.atomic_file import reason, write_whole
from .._shared.numbers import megabytes
from .._shared.strict_json import strict
from .._shared.system import installed_versions
from ..autopsy.report import AutopsyReport
from ..guard import Counts, Decision, Escalation
from ..presets.run_plan import RunPlan
from .epoch_metrics import EpochMetrics
from .events import SCHEMA, Event, EventLog
from .format import name_files, what_was_done
from .step_record import StepRecord
from .summary import Summary
from .warning_rules import Caution

LINES_PER_EPOCH = 20
"""Rejections printed in an epoch; further ones are only recorded."""
FILES_KEPT = 1024
"""Most image files recorded of a window."""


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
        """Record the setup before the first step."""
        versions = {**installed_versions("torch", "ultralytics", "yolo-stable"), "python": platform.python_version()}
        on_record = {"injected": list(plan.injected)} if plan.injected else {}
        self._injected = plan.injected
        self._write("start", {"versions": versions, **plan.to_dict(), **on_record, **setup})

    def begin_epoch(self) -> None:
        """Restart the count of printed lines."""
        self._printed = 0

    def batch_files(self, files: Iterable[str]) -> None:
        """Remember the image files of the next micro-batch, in case it is rejected."""
        self._batch = files
        self._window.append(files)

    def window_closed(self) -> None:
        """Forget the files of the window."""
        self._window = []

    def rejection(self, decision: Decision, where: tuple[int, int, int, int], step: int) -> str:
        """Record a rejection.

        Args:
            decision: The verdict and its evidence.
            where: Epoch (from 1), epochs in all, batch (from 1), batches in the epoch.
            step: Optimizer steps applied so far.

        Returns:
            One line for the terminal; empty once this epoch has printed enough.
        """
        epoch, epochs, batch, batches = where
        what = decision.verdict.value.removeprefix("reject_")
        named = self._batch if what == "micro_batch" else chain.from_iterable(self._window)
        files = [str(file) for file in islice(named, FILES_KEPT)]
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
            epoch,
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
        self._write("steps", record.details(), epoch)

    def warning(self, caution: Caution, epoch: int, step: int) -> None:
        """Record a warning."""
        self._write("warning", {**dataclasses.asdict(caution), "step": step}, epoch)

    def epoch(self, epoch: int, telemetry: EpochMetrics) -> None:
        """Record the counts and means of an epoch."""
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
            epoch,
        )

    def escalation(self, escalation: Escalation, epoch: int) -> str:
        """Record that more than a batch was undone, and return a line for the terminal."""
        details = {
            "rung": escalation.level.value,
            "reason": escalation.reason,
            "culprits": escalation.culprits,
            "step": escalation.step,
            "to_step": escalation.to_step,
            "lost": escalation.lost,
            "lr_factor": escalation.lr_factor,
            "precision": escalation.precision or None,
        }
        self._write("climb", details, epoch)
        return f"epoch {epoch}: {what_was_done(escalation)}. Reason: {escalation.reason}."

    def incident(
        self,
        kind: str,
        report: AutopsyReport,
        epoch: int,
        folder: Path | None,
        injected: Sequence[str] = (),
        left_out: Sequence[str] = (),
    ) -> str:
        """Record what was found out about an incident, and return a line for the terminal.

        Args:
            kind: The kind of rejection, or the level of escalation.
            report: The autopsy's answer.
            epoch: From 1.
            folder: Where it was written in full, or None.
            injected: Injected faults that have just fired.
            left_out: Parts that were not written, to keep it small.
        """
        answer = {key: value for key, value in report.to_json().items() if key != "schema"}
        on_record = {"injected": list(injected)} if injected else {}
        size = _size_of(folder)
        details = {"kind": kind, "folder": str(folder) if folder else None, "bytes": size, **answer, **on_record}
        self._write("incident", details, epoch)
        without = f", without {', '.join(left_out)}: guard.incident_bytes" if left_out else ""
        where = f" Bundle: {folder} ({megabytes(size)}{without})" if folder else ""
        return f"{report.headline()}.{where} Next: " + "\n    ".join(report.next.split("\n"))

    def left_out(self, path: str) -> None:
        """Record that the rest of the run leaves out an image."""
        self._write("left_out", {"path": path})

    def unreadable(self, path: str, why: str, split: str, lost: int, images: int) -> None:
        """Record that an image has become unreadable and is left out.

        Args:
            path: The file.
            why: What happened to it.
            split: ``train`` or ``val``.
            lost: Files of this split that are unreadable by now.
            images: Images of this split.
        """
        self._write("unreadable", {"path": path, "why": why, "split": split, "lost": lost, "images": images})

    def validation_not_finite(self, epoch: int, names: list[str]) -> None:
        """Record that a validation was not finite."""
        self._write("validation_not_finite", {"names": names}, epoch)

    def checkpoint_kept(self, epoch: int, culprits: tuple[str, ...]) -> None:
        """Record that a save was refused."""
        self._write("checkpoint_kept", {"culprits": culprits}, epoch)

    def saved(self, path: Path, epoch: int, step: int = 0) -> None:
        """Remember the newest healthy checkpoint, and how many optimizer steps of this run it has."""
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
        """Forget the checkpoints: they hold the weights at the start of the run."""
        self._saved, self._untrained = None, True

    def good_checkpoint(self) -> str:
        """Return a sentence that names the newest healthy checkpoint."""
        if self._untrained:
            return "There is no good checkpoint: the saved weights are those at the start of the run."
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
        rows = self.outcome(counts)
        if self._log is not None:
            self._log.close()
            problems = [self._log.problem, _write_summary(self.folder / "summary.json", summary)]
            lost = "; ".join(problem for problem in problems if problem)
            rows.append(("details", lost or f"{self.folder / 'summary.json'}, guard.jsonl"))
        return rows

    def outcome(self, counts: Counts) -> list[tuple[str, str]]:
        """Return the rows of the closing table that tell what has happened so far."""
        rows = [
            ("steps applied", f"{counts.applied}, of them clipped: {counts.clipped}"),
            ("rejected", f"micro-batches: {counts.rejected_micro_batches}, windows: {counts.rejected_windows}"),
            *self._summary.rows(self.folder),
        ]
        if self._injected:
            rows.append(("injected", f"on purpose: {', '.join(self._injected)}"))
        return rows + self._summary.listed()

    def _write(self, event: str, details: dict[str, Any], epoch: int | None = None) -> None:
        """Record an event of an epoch (from 1); None: of the last one."""
        self._epoch = self._epoch if epoch is None else epoch
        self._summary.add({"event": event, "epoch": self._epoch, **details})
        if self._log is not None:
            self._log.write(Event(event=event, epoch=self._epoch, details=details))


def _size_of(folder: Path | None) -> int:
    """Return the bytes of the files in a folder; 0 where there is none."""
    if folder is None or not folder.is_dir():
        return 0
    return sum(path.stat().st_size for path in folder.iterdir())


def _write_summary(path: Path, content: dict[str, Any]) -> str | None:
    """Write JSON whole; return what went wrong, or None."""
    try:
        write_whole(path, (json.dumps(strict(content), indent=2, allow_nan=False) + "\n").encode())
    except OSError as error:
        return f"{path}: {reason(error)}"
    return None
