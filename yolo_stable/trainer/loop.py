"""Guarded loop: what runs at each seam in Ultralytics' training loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..checkpoints.resume import ResumeSession
from ..checkpoints.trainer_view import TrainerView
from ..checkpoints.writer import CheckpointWriter
from ..errors import TrainingHaltedError
from ..guard import Decision, StepGuard
from ..incidents.record import DrawnBatch
from ..runlog.injections import Injections
from .ema import AverageUpdate
from .file_watcher import FileWatcher
from .label_filter import disarm
from .open_window import OpenWindow
from .reporter import Reporter
from .shutdown import ShutdownController
from .validation import ValidationPolicy

Losses = tuple[Tensor, dict[str, Tensor]]
"""The loss of a micro-batch, and its parts by name."""


class GuardedLoop:
    """Runs micro-batches and windows through the guard, and follows the loop's events.

    Args:
        trainer: Read for the guard and the place in the run.
        window: Holds the micro-batches.
        reporter: Tells of decisions.
        files: Tells of lost files.
        validation: Keeps some of the batches.
        injections: Follows what was put in on purpose.
        resume: Puts back what the loop draws from.
        checkpoints: Saves every so many steps.
        shutdown: Leaves when a signal has asked for it.
    """

    def __init__(
        self,
        trainer: TrainerView,
        *,
        window: OpenWindow,
        reporter: Reporter,
        files: FileWatcher,
        validation: ValidationPolicy,
        injections: Injections,
        resume: ResumeSession,
        checkpoints: CheckpointWriter,
        shutdown: ShutdownController,
    ) -> None:
        self._trainer, self._window, self._reporter = trainer, window, reporter
        self._files, self._validation = files, validation
        self._injections, self._resume, self._checkpoints, self._shutdown = injections, resume, checkpoints, shutdown
        self._update_average = AverageUpdate()
        self._healthy: Losses | None = None

    def draw(self, batch: dict[str, Any]) -> DrawnBatch:
        """Inspect a batch from the loader while its labels are on the host.

        Raises:
            TrainingHaltedError: Too many training images are lost.
        """
        self._files.look()
        drawn = self._window.draw(batch)
        drawn.fault = disarm(batch, self._trainer.data["nc"])
        return drawn

    def remember(self, drawn: DrawnBatch, batch: dict[str, Any]) -> None:
        """Keep a batch as it goes into the model.

        Args:
            drawn: As :meth:`draw` has returned it.
            batch: The same, on the device.
        """
        self._trainer.run_log.batch_files(drawn.names)
        if self._trainer.guard is not None:
            self._trainer.guard.before_forward()  # before anything is put on the model for the time of the forward pass
        self._window.remember(drawn, batch)
        self._validation.witness(batch)

    def backward(self, loss: Tensor) -> Losses | None:
        """Let the guard judge a micro-batch after its forward pass.

        Args:
            loss: What is back-propagated.

        Returns:
            The last healthy loss in the place of a rejected one, since stock's validator looks at it; None: accepted.

        Raises:
            TrainingHaltedError: The guard gave up.
        """
        guard, window = self._guard(), self._window
        window.open()
        try:
            items = self._trainer.loss_items
            decision = guard.backward(loss, items, fault=window.fault, of_one_scale=window.is_of_one_scale)
        except TrainingHaltedError:
            self._note(guard.last)
            raise
        self._note(decision)
        if decision:
            self._healthy = self._trainer.loss.detach(), self._trainer.loss_items
            return None
        zeros = {name: torch.zeros_like(item) for name, item in self._trainer.loss_items.items()}
        return self._healthy or (torch.zeros_like(loss), zeros)

    def step(self) -> None:
        """Apply a healthy window, and only then update the EMA.

        Raises:
            TrainingHaltedError: The guard gave up.
        """
        guard, trainer = self._guard(), self._trainer
        self._window.close()
        self._resume.stepped()
        if trainer.optimizer is not None and guard.optimizer is not trainer.optimizer:
            guard.optimizer = trainer.optimizer  # a callback has put another one in
        try:
            decision = self._reporter.measured_step()
        except TrainingHaltedError:
            self._note(guard.last)
            raise
        if decision and trainer.ema:
            if guard.step_name.startswith("fused"):
                self._update_average(trainer.ema, trainer.model)
            else:  # with the reference step all is stock's, bit for bit
                trainer.ema.update(trainer.model)
        self._window.forget()
        guard.state.ema = trainer.ema
        guard.settle()
        self._injections.end_window()
        every = trainer.plan.trainer.save_every_steps
        if decision and every and guard.counts.applied % every == 0 and trainer.args.save:
            with self._reporter.untimed():
                self._checkpoints.save_soon(trainer.epoch - 1)

    def abandon(self) -> None:
        """Undo the open window: memory ran out, and the loop starts again with a smaller batch."""
        guard = self._trainer.guard
        if guard is not None:
            guard.abandon_window()
            self._window.forget()
            if guard.recovery is not None:
                guard.recovery.out_of_memory()
            self._trainer.run_log.window_closed()
        self._files.release()
        self._resume.began()

    def before_callbacks(self, event: str) -> None:
        """Follow an event of the loop before its callbacks.

        Raises:
            YoloStableError: An epoch has passed the guard by.
        """
        trainer = self._trainer
        if event == "on_train_epoch_start":
            trainer.telemetry.begin()
            trainer.run_log.begin_epoch()
        elif event == "on_train_batch_start":
            self._injections.begin_batch()
        elif event == "on_train_batch_end":
            self._checkpoints.notice()
        elif event == "on_train_epoch_end":
            self._checkpoints.finish()  # of the epoch before: a crash costs one epoch at most, however short they are
            self._reporter.require_that_the_guard_was_asked()
            self._files.share()
            trainer.run_log.epoch(trainer.epoch + 1, trainer.telemetry)
        self._reporter.follow_epoch(event)

    def after_callbacks(self, event: str) -> None:
        """Follow an event of the loop after its callbacks, which may have changed anything.

        Raises:
            TrainingInterruptedError: A signal has asked to leave.
        """
        if event == "on_train_epoch_start":
            self._resume.begin_epoch()
        elif event == "on_train_start" and self._trainer.guard is not None:
            self._trainer.guard.resync()
        self._shutdown.keep_workers(event)
        self._shutdown.leave_if_asked(event)

    def _guard(self) -> StepGuard:
        assert self._trainer.guard is not None
        return self._trainer.guard

    def _note(self, decision: Decision | None) -> None:
        if decision is not None and self._reporter.note(decision):
            self._window.blame_newest(decision)
