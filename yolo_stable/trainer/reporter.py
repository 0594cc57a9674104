"""Reporter: what a guarded trainer tells while it runs: what is on, rejections, the numbers of the steps, and warnings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.optim import SGD
from ultralytics.utils import LOGGER, RANK

from .._shared.shell_text import beneath
from .._shared.tables import render_table
from ..errors import YoloStableError
from ..guard import Decision, StepGuard
from ..incidents.record import Drawn
from ..presets.lr_schedule import schedule_warnings
from ..presets.run_plan import RunPlan
from ..presets.ultralytics_settings import default_hyp
from ..runlog.epoch_metrics import EpochTelemetry
from ..runlog.step_metrics import StepTelemetry
from ..runlog.warning_rules import Caution
from ..runlog.writer import RunLog
from .banner import guard_rows, precision, preset_rows, telemetry_row

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object

LONGEST_WARM_UP = 1000
"""Batches of the warm-up in which warnings are held back; that of a large data set lasts for tens of thousands."""


class GuardedTelling(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that prints, and writes the log."""

    plan: RunPlan
    guard: StepGuard | None
    run_log: RunLog
    telemetry: EpochTelemetry
    batch_number: int
    own_fault: tuple[Decision, list[Drawn]] | None
    look_into: Callable[[Decision], None]
    told: Callable[[str], str]
    precisions: Callable[[], int]
    _drawn: list[Drawn]
    step_telemetry: StepTelemetry | None = None
    """None on ranks that keep no files, and when it is off."""
    _told: Decision | None = None
    _stepped = False
    """Whether the loop has called for a step."""

    # ---- before the first step -------------------------------------------------------------------------------------------

    def tell_what_is_on(self, scaler: Any) -> None:
        """Print and record the set-up; on ranks that keep files.

        Args:
            scaler: The loop's GradScaler.
        """
        assert self.guard is not None
        config = self.plan.trainer
        if config.telemetry_every is not None:
            limits = config.telemetry_every, config.warn_norm, self.guard.config.max_norm
            proportional = isinstance(self.optimizer, SGD)
            self.step_telemetry = StepTelemetry(*limits, self.device, proportional=proportional)
        numbers = precision(bool(self.amp), self.args.amp, scaler)
        does = guard_rows(
            self.guard, accumulate=self.accumulate, precisions=self.precisions(), collapse=config.collapse
        )
        rows = [*does, telemetry_row(config), ("precision", numbers), *preset_rows(self.plan)]
        LOGGER.info(render_table("guard of yolo-stable", rows))
        warnings = schedule_warnings(vars(self.args), len(self.train_loader), default_hyp())
        for warning in warnings:
            LOGGER.warning(warning)
        optimizer = type(self.optimizer).__name__
        device = str(self.device)
        self.run_log.start(
            self.plan, optimizer=optimizer, precision=numbers, device=device, epochs_before=self.start_epoch
        )

    # ---- decisions -------------------------------------------------------------------------------------------------------

    def note(self, decision: Decision | None) -> None:
        """Count a decision, and tell of a rejection that nobody has told of."""
        assert decision is not None
        self.telemetry.add(decision)
        if self.step_telemetry is not None:
            self.step_telemetry.add(decision)
        if (
            decision.rejected and decision is not self._told
        ):  # one of several ranks, whose window will be rejected by all
            self._tell(decision)
            self.own_fault = decision, self._drawn[-1:]
        if decision.norm is not None or decision.verdict.value == "empty":
            self.run_log.window_closed()

    def on_reject(self, decision: Decision) -> None:
        """Tell of a rejection and look into it, before anything else follows from it."""
        self._tell(decision)
        with self.untimed():
            self.look_into(decision)

    def _tell(self, decision: Decision) -> None:
        assert self.guard is not None
        self._told = decision
        where = (self.epoch + 1, self.epochs, self.batch_number, len(self.train_loader))
        say(self.run_log.rejection(decision, where, self.guard.counts.applied))

    # ---- steps -----------------------------------------------------------------------------------------------------------

    def measured_step(self) -> Decision:
        """Let the guard judge and apply the window, and write what is to be known of it, every so often.

        Raises:
            TrainingHaltedError: The guard gave up.
        """
        assert self.guard is not None
        steps = self.step_telemetry
        due = steps is not None and steps.before_step(self.guard)
        decision = self.guard.step(measure=due)
        self.note(decision)
        if due and steps is not None:
            step = self.guard.counts.applied
            made = steps.record(decision, batch=self.batch_number, step=step, warm_up=self._is_warm_up())
            if made is not None:
                record, cautions = made
                self.run_log.steps(record, self.epoch + 1)
                for caution in cautions:
                    self._caution(caution, step)
        return decision

    def untimed(self) -> contextlib.AbstractContextManager[None]:
        """Return what keeps the time of a save or an autopsy out of the steps' time."""
        return contextlib.nullcontext() if self.step_telemetry is None else self.step_telemetry.clock.pause()

    def follow_epoch(self, event: str) -> None:
        """Let the clock of the steps run within an epoch and stand still between two.

        Args:
            event: A callback event of the loop.
        """
        if self.step_telemetry is None:
            return
        if event == "on_train_epoch_start":
            self.step_telemetry.watch.begin_epoch()
            self.step_telemetry.clock.go()
        elif event == "on_train_epoch_end":
            self.step_telemetry.clock.stop()

    def _is_warm_up(self) -> bool:
        """Return whether the loop still warms up, by its own arithmetic."""
        batches = len(self.train_loader)
        last = self._get_warmup_iterations(batches)
        return last > 0 and batches * self.epoch + self.batch_number - 1 <= min(last, LONGEST_WARM_UP)

    def _caution(self, caution: Caution, step: int) -> None:
        where = f"epoch {self.epoch + 1}/{self.epochs}, step {step}"
        message = self.told(caution.message)
        caution = replace(caution, message=message)
        self.run_log.warning(caution, self.epoch + 1, step)
        say(beneath(f"{where}: {caution.what}: {message}{'' if chr(10) in message else '.'}"))

    def require_that_the_guard_was_asked(self) -> None:
        """Refuse to go on when an epoch of training has passed the guard by.

        Raises:
            YoloStableError: It has.
        """
        judged = self.telemetry.accepted + self.telemetry.rejected
        if self.batch_number and not judged:
            what, call = "forward pass", "self.scaler.scale(self.loss).backward()"
        elif self.telemetry.accepted > self.accumulate and not self._stepped:
            what, call = "optimizer step", "super().optimizer_step()"
        else:
            return
        raise YoloStableError(
            f"{self.batch_number} batches were trained without the guard being asked about a single {what}:"
            f" {type(self).__name__} or this version of Ultralytics does not call {call}."
            " Call it, or install the Ultralytics version that yolo-stable names in its requirements."
        )


def say(line: str) -> None:
    """Print a warning beneath the progress bar; nothing for an empty line, and on ranks that print nothing."""
    if line and RANK in {-1, 0}:
        LOGGER.info("")  # ends the line of the progress bar
        LOGGER.warning(line)
