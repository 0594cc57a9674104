"""Reporter: the banner, rejections, step metrics and warnings of a run, on the terminal, in the log, to loggers and alerts."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from torch.optim import SGD
from ultralytics.utils import LOGGER, RANK

from .._shared.shell_text import beneath
from .._shared.tables import render_table
from ..checkpoints.trainer_view import TrainerView
from ..errors import YoloStableError
from ..guard import Decision, Escalation
from ..presets.lr_schedule import schedule_warnings
from ..presets.ultralytics_settings import default_hyp
from ..runlog.step_metrics import StepMetrics
from ..runlog.warning_rules import Caution
from .alert_service import AlertService
from .banner import guard_rows, incident_row, precision, preset_rows, telemetry_row
from .logger_relay import LoggerRelay
from .next_steps import NextSteps

LONGEST_WARM_UP = 1000
"""Warm-up batches without warnings; the warm-up of a large data set lasts tens of thousands."""


class Reporter:
    """Prints to the terminal, writes to the log, and hands on what others get of it.

    Args:
        trainer: Read for the place in the run, the plan, the log and the epoch's telemetry.
        next_steps: Fills the commands of what is told.
        loggers: Get numbers and texts.
        alerts: Are sent of trouble.
    """

    def __init__(
        self, trainer: TrainerView, next_steps: NextSteps, *, loggers: LoggerRelay, alerts: AlertService
    ) -> None:
        self._trainer, self._next_steps, self._loggers, self._alerts = trainer, next_steps, loggers, alerts
        self.steps: StepMetrics | None = None
        """None on ranks that keep no files, and when it is off."""
        self._told: Decision | None = None
        self._stepped = False
        """Whether the loop has called for a step."""

    # ---- before the first step -------------------------------------------------------------------------------------------

    def banner(self, scaler: object, precisions: int) -> None:
        """Print and record the set-up; on ranks that keep files.

        Args:
            scaler: The loop's GradScaler.
            precisions: How many there are to try, the one of now included.
        """
        trainer = self._trainer
        assert trainer.guard is not None
        if trainer.resume and trainer.last.exists():
            trainer.run_log.saved(trainer.last, trainer.start_epoch)
        config = trainer.plan.trainer
        if config.telemetry_every is not None:
            limits = config.telemetry_every, config.warn_norm, trainer.guard.config.max_norm
            self.steps = StepMetrics(*limits, trainer.device, proportional=isinstance(trainer.optimizer, SGD))
        numbers = precision(bool(trainer.amp), trainer.args.amp, scaler)
        does = guard_rows(trainer.guard, accumulate=trainer.accumulate, precisions=precisions, collapse=config.collapse)
        rows = [*does, incident_row(config), telemetry_row(config), *self._loggers.begin(), *self._alerts.begin()]
        rows += [("precision", numbers), *preset_rows(trainer.plan)]
        LOGGER.info(render_table("guard of yolo-stable", rows))
        for warning in schedule_warnings(vars(trainer.args), len(trainer.train_loader), default_hyp()):
            LOGGER.warning(warning)
        trainer.run_log.start(
            trainer.plan,
            optimizer=type(trainer.optimizer).__name__,
            precision=numbers,
            device=str(trainer.device),
            epochs_before=trainer.start_epoch,
        )

    # ---- decisions -------------------------------------------------------------------------------------------------------

    def note(self, decision: Decision) -> bool:
        """Count a decision, and report a rejection that was not reported yet.

        Returns:
            Whether it was one: that of one of several ranks, whose window all of them will reject.
        """
        self._trainer.telemetry.add(decision)
        self._alerts.decided(decision)
        if self.steps is not None:
            self.steps.add(decision)
        is_news = decision.rejected and decision is not self._told
        if is_news:
            self.tell_rejection(decision)
        if decision.norm is not None or decision.verdict.value == "empty":
            self._trainer.run_log.window_closed()
        return is_news

    def tell_rejection(self, decision: Decision) -> None:
        """Report a rejection with its place in the run."""
        trainer = self._trainer
        assert trainer.guard is not None
        self._told = decision
        where = (trainer.epoch + 1, trainer.epochs, trainer.batch_number, len(trainer.train_loader))
        say(trainer.run_log.rejection(decision, where, trainer.guard.counts.applied))

    def tell_escalation(self, escalation: Escalation) -> None:
        """Report that more than a batch was undone."""
        line = self._trainer.run_log.escalation(escalation, self._trainer.epoch + 1)
        say(line)
        self._loggers.tell(escalation.level.value, line)
        self._alerts.escalated(escalation.level, line)

    def tell_incident(self, kind: str, reason: str, line: str, picture: Path | None) -> None:
        """Report what was found out about an incident.

        Args:
            kind: Of the incident.
            reason: What was seen.
            line: What the log says of it.
            picture: Of the guilty image, if there is one.
        """
        LOGGER.warning(line)
        trainer = self._trainer
        where = f"epoch {trainer.epoch + 1}/{trainer.epochs}, batch {trainer.batch_number}"
        self._loggers.tell(kind, f"{where}: {reason}\n{line}", picture)

    # ---- steps -----------------------------------------------------------------------------------------------------------

    def measured_step(self) -> Decision:
        """Let the guard judge and apply the window; log its metrics every ``telemetry_every`` steps.

        Raises:
            TrainingHaltedError: The guard gave up.
        """
        trainer, steps = self._trainer, self.steps
        assert trainer.guard is not None
        self._stepped = True
        due = steps is not None and steps.before_step(trainer.guard)
        decision = trainer.guard.step(measure=due)
        self.note(decision)
        if due and steps is not None:
            step = trainer.guard.counts.applied
            warm_up = trainer.is_warming_up(LONGEST_WARM_UP)
            made = steps.record(decision, batch=trainer.batch_number, step=step, warm_up=warm_up)
            if made is not None:
                record, cautions = made
                trainer.run_log.steps(record, trainer.epoch + 1)
                with self.untimed():
                    self._loggers.step(record)
                for caution in cautions:
                    self._caution(caution, step)
        return decision

    def untimed(self) -> contextlib.AbstractContextManager[None]:
        """Return a context whose time does not count as step time, for a save or an autopsy."""
        return contextlib.nullcontext() if self.steps is None else self.steps.clock.pause()

    def follow_epoch(self, event: str) -> None:
        """Run the steps' clock within epochs only.

        Args:
            event: A callback event of the loop.
        """
        self._loggers.follow(event)
        if self.steps is None:
            return
        if event == "on_train_epoch_start":
            self.steps.watch.begin_epoch()
            self.steps.clock.go()
        elif event == "on_train_epoch_end":
            self.steps.clock.stop()

    def _caution(self, caution: Caution, step: int) -> None:
        trainer = self._trainer
        where = f"epoch {trainer.epoch + 1}/{trainer.epochs}, step {step}"
        message = self._next_steps.told(caution.message)
        caution = replace(caution, message=message)
        trainer.run_log.warning(caution, trainer.epoch + 1, step)
        say(beneath(f"{where}: {caution.what}: {message}{'' if chr(10) in message else '.'}"))

    def require_that_the_guard_was_asked(self) -> None:
        """Stop a run whose epoch bypassed the guard.

        Raises:
            YoloStableError: It has.
        """
        trainer, telemetry = self._trainer, self._trainer.telemetry
        judged = telemetry.accepted + telemetry.rejected
        if trainer.batch_number and not judged:
            what, call = "forward pass", "self.scaler.scale(self.loss).backward()"
        elif telemetry.accepted > trainer.accumulate and not self._stepped:
            what, call = "optimizer step", "super().optimizer_step()"
        else:
            return
        raise YoloStableError(
            f"{trainer.batch_number} batches were trained without the guard being asked about a single {what}:"
            f" {trainer.name} or this version of Ultralytics does not call {call}."
            " Call it, or install the Ultralytics version that yolo-stable names in its requirements."
        )


def say(line: str) -> None:
    """Print a warning beneath the progress bar; nothing for an empty line, and on ranks that print nothing."""
    if line and RANK in {-1, 0}:
        LOGGER.info("")  # ends the line of the progress bar
        LOGGER.warning(line)
