"""Finish: what has to be true for a guarded training to be done, and what is said and saved when it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ultralytics.utils import LOGGER, RANK

from .._shared.error_text import one_line
from .._shared.shell_text import CHECK, GO_ON
from .._shared.tables import render_table
from ..errors import TrainingHaltedError, YoloStableError
from ..guard import StepGuard
from ..presets.run_plan import RunPlan
from ..report import write_report
from ..runlog.injections import Injections
from ..runlog.writer import RunLog

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class GuardedEnding(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that closes the books."""

    guard: StepGuard | None
    plan: RunPlan
    run_log: RunLog
    batch_number: int
    injections: Injections
    told: Callable[[str], str]
    save_now: Callable[[int], bool]

    def halted(self, error: TrainingHaltedError) -> TrainingHaltedError:
        """Save what the ladder has put back, close the books, and return the error that names the good checkpoint."""
        self._save_what_was_put_back()
        where = f"It was in epoch {self.epoch + 1}/{self.epochs}, batch {self.batch_number}."
        seen, next = str(error), error.next
        if self.injections.over:  # nothing is to be looked for
            seen, next = error.seen, f"To go on without them:\n{GO_ON}"
        message = f"{seen} {where} {self.run_log.good_checkpoint()}\n{self.told(next)}".strip()
        self.close_books("halted", message)
        return TrainingHaltedError(message)

    def _save_what_was_put_back(self) -> None:
        """Save the snapshot that the ladder ended with, when it is newer than the last checkpoint."""
        recovery = self.guard.recovery if self.guard is not None else None
        newest = recovery.ring.newest if recovery is not None else None
        if newest is not None and newest.step and self.args.save and newest.step > self.run_log.saved_step:
            self.save_now(self.epoch - 1)

    def require_that_something_was_learned(self) -> None:
        """Refuse to call a run done whose every step was rejected or undone.

        Raises:
            TrainingHaltedError: It was.
        """
        if self.guard is None:
            return
        counts, recovery = self.guard.counts, self.guard.recovery
        learned = counts.applied if recovery is None else recovery.trained
        if learned or not (counts.rejected or counts.rollbacks):
            return
        self.run_log.nothing_learned()
        undone = (
            f"{counts.applied} optimizer steps were taken, and all undone" if counts.applied else "no step was taken"
        )
        raise TrainingHaltedError(
            f"Nothing was learned: of {counts.micro_batches} micro-batches {counts.rejected_micro_batches} were rejected, and"
            f" {undone}.",
            "Look at the reasons in guard.jsonl.",
            f"What is wrong with the data set:\n{CHECK}",
        )

    def require_that_it_was_saved(self) -> None:
        """Refuse to call a run done whose last checkpoint is not on the disk.

        Raises:
            YoloStableError: It is not.
        """
        if RANK in {-1, 0} and self.args.save and not self.run_log.has_saved(self.epoch + 1):
            raise YoloStableError(
                f"Training has ended with epoch {self.epoch + 1}, but its checkpoint could not be written."
                f" {self.run_log.good_checkpoint()} Look at the warnings above."
            )

    def close_books(self, status: str, message: str) -> None:
        """Record the end, write the report and print the closing table.

        Args:
            status: ``done``, ``halted``, ``interrupted`` or ``failed``.
            message: Why, unless it is done.
        """
        if self.guard is None or RANK not in {-1, 0}:
            return
        rows = self.run_log.finish(status, message, self.guard.counts)
        if status == "done":
            metrics: Any = self.metrics or {}
            shown = ((key, value) for key, value in metrics.items() if key.startswith("metrics/"))
            rows = [(key.removeprefix("metrics/"), f"{value:.4g}") for key, value in shown] + rows
        rows += self._report()
        LOGGER.info(render_table(f"guard of yolo-stable: {status}", rows))

    def _report(self) -> list[tuple[str, str]]:
        """Write ``report.html`` into the run's folder, and return its row of the closing table."""
        if not self.plan.trainer.report:
            return []
        try:
            return [("report", str(write_report([self.save_dir])))]
        except Exception as error:  # noqa: BLE001 - it is a luxury: no error of it may change how a run ends
            LOGGER.warning(f"The report could not be written: {type(error).__name__}: {one_line(error)}")
            return []
