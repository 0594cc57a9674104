"""Run ending: the conditions of a finished run, and what every other ending saves and says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from ultralytics.utils import LOGGER, RANK

from .._shared.shell_text import CHECK, GO_ON
from .._shared.tables import render_table
from .._shared.text import one_line
from ..checkpoints.trainer_view import TrainerView
from ..checkpoints.writer import CheckpointWriter
from ..errors import TrainingHaltedError, TrainingInterruptedError, YoloStableError
from ..provenance.substitution import NoImageLeftError
from ..report import write_report
from ..runlog.injections import Injections
from .alert_service import AlertService
from .file_watcher import FileWatcher
from .logger_relay import nothing_learned
from .next_steps import NextSteps
from .precision import PrecisionPolicy


class RunEnding:
    """Records the end of a run, however it ends.

    Args:
        trainer: Read for the place in the run, the log and the counters.
        checkpoints: Saves what was put back.
        files: Knows why no image is left.
        precision: Knows whether it was lowered.
        injections: Tells what was put in on purpose.
        next_steps: Fills the commands of what is told.
        alerts: Are sent of a halt and of the end.
        undo_resume: Undoes what a resume has written before its first batch.
    """

    def __init__(
        self,
        trainer: TrainerView,
        *,
        checkpoints: CheckpointWriter,
        files: FileWatcher,
        precision: PrecisionPolicy,
        injections: Injections,
        next_steps: NextSteps,
        alerts: AlertService,
        undo_resume: Callable[[], None],
    ) -> None:
        self._trainer, self._checkpoints, self._files, self._precision = trainer, checkpoints, files, precision
        self._injections, self._next_steps, self._undo_resume = injections, next_steps, undo_resume
        self.error: YoloStableError | None = None
        """What the training has raised, for whoever trains several in a row."""
        self._alerts = alerts

    @contextlib.contextmanager
    def of_the_run(self) -> Iterator[None]:
        """Record the end of the training in here, and keep its error; raises as :meth:`_recorded`."""
        with self.error_kept(), self._recorded():
            yield

    @contextlib.contextmanager
    def error_kept(self) -> Iterator[None]:
        """Keep what is raised in here, such as by a signal while the workers of a multi-GPU run train."""
        try:
            yield
        except YoloStableError as error:
            self.error = error
            raise

    @contextlib.contextmanager
    def _recorded(self) -> Iterator[None]:
        """Record the end of the training in here.

        Raises:
            TrainingHaltedError: The guard gave up; names the good checkpoint and what to type next.
            TrainingInterruptedError: As it came, so for all other errors.
        """
        try:
            yield
        except TrainingHaltedError as error:
            raise self.halted(error) from error
        except NoImageLeftError as error:
            raise self.halted(self._files.nothing_left()) from error
        except TrainingInterruptedError as error:
            self.close_books("interrupted", str(error))
            raise
        except KeyboardInterrupt:  # the second Ctrl-C
            saved = f"KeyboardInterrupt. {self._trainer.run_log.good_checkpoint()}"
            self.close_books("interrupted", self._next_steps.filled(f"{saved}\nGo on with:\n{GO_ON}"))
            raise
        except BaseException as error:
            self._undo_resume()
            if self._precision.was_lowered and "out of memory" in str(error).lower():
                seen = one_line(error).rstrip(".")
                halt = f"Out of memory, after the precision had to be lowered: {seen}. Lower batch=."
                raise self.halted(TrainingHaltedError(halt, next=f"Then go on:\n{GO_ON}")) from error
            self.close_books("failed", f"{type(error).__name__}: {error}")
            raise
        self.close_books("done", "")

    def halted(self, error: TrainingHaltedError) -> TrainingHaltedError:
        """Save the restored state, record the halt, and return the error that names the good checkpoint."""
        self._alerts.halted(str(error))
        self._save_what_was_put_back()
        where = f"It was in epoch {self._trainer.epoch + 1}/{self._trainer.epochs}, batch {self._trainer.batch_number}."
        seen, next = str(error), error.next
        if self._injections.over:  # nothing is to be looked for
            seen, next = error.seen, f"To go on without them:\n{GO_ON}"
        message = f"{seen} {where} {self._trainer.run_log.good_checkpoint()}\n{self._next_steps.told(next)}".strip()
        self.close_books("halted", message)
        return TrainingHaltedError(message)

    def _save_what_was_put_back(self) -> None:
        """Save the newest snapshot when it is newer than the last checkpoint."""
        recovery = self._trainer.guard.recovery if self._trainer.guard is not None else None
        newest = recovery.ring.newest if recovery is not None else None
        if (
            newest is not None
            and newest.step
            and self._trainer.args.save
            and newest.step > self._trainer.run_log.saved_step
        ):
            self._checkpoints.save_now(self._trainer.epoch - 1)

    def require_that_something_was_learned(self) -> None:
        """Fail a run whose every step was rejected or undone.

        Raises:
            TrainingHaltedError: It was.
        """
        if self._trainer.guard is None:
            return
        counts = self._trainer.guard.counts
        if not nothing_learned(self._trainer.guard):
            return
        self._trainer.run_log.nothing_learned()
        undone = (
            f"{counts.applied} optimizer steps were taken, and all undone" if counts.applied else "no step was taken"
        )
        windows = f", and {counts.rejected_windows} windows" if counts.rejected_windows else ""
        raise TrainingHaltedError(
            f"Nothing was learned: of {counts.micro_batches} micro-batches {counts.rejected_micro_batches} were rejected"
            f"{windows}, and {undone}.",
            "Look at the reasons in guard.jsonl.",
            f"What is wrong with the data set:\n{CHECK}",
        )

    def require_that_it_was_saved(self) -> None:
        """Fail a run whose last checkpoint is not on the disk.

        Raises:
            YoloStableError: It is not.
        """
        if RANK in {-1, 0} and self._trainer.args.save and not self._trainer.run_log.has_saved(self._trainer.epoch + 1):
            raise YoloStableError(
                f"Training has ended with epoch {self._trainer.epoch + 1}, but its checkpoint could not be written."
                f" {self._trainer.run_log.good_checkpoint()} Look at the warnings above."
            )

    def close_books(self, status: str, message: str) -> None:
        """Record the end, write the report and print the closing table.

        Args:
            status: ``done``, ``halted``, ``interrupted`` or ``failed``.
            message: Why, unless it is done.
        """
        if self._trainer.guard is None or RANK not in {-1, 0}:
            return
        rows = self._trainer.run_log.finish(status, message, self._trainer.guard.counts)
        if status == "done":
            metrics = self._trainer.metrics or {}
            shown = ((key, value) for key, value in metrics.items() if key.startswith("metrics/"))
            rows = [(key.removeprefix("metrics/"), f"{value:.4g}") for key, value in shown] + rows
        rows += self._report()
        LOGGER.info(render_table(f"guard of yolo-stable: {status}", rows))
        self._alerts.ended(status, message)

    def _report(self) -> list[tuple[str, str]]:
        """Write ``report.html`` into the run's folder, and return its row of the closing table."""
        if not self._trainer.plan.trainer.report:
            return []
        try:
            return [("report", str(write_report([self._trainer.save_dir])))]
        except Exception as error:  # noqa: BLE001 - it is a luxury: no error of it may change how a run ends
            LOGGER.warning(f"The report could not be written: {type(error).__name__}: {one_line(error)}")
            return []
