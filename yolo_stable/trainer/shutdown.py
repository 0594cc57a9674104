"""Shutdown: a signal ends the run after the current step, with everything saved."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import weakref
from collections.abc import Iterator
from typing import Any

import psutil
from torch.utils.data import DataLoader
from ultralytics.utils import LOGGER, RANK

from .._shared.shell_text import GO_ON
from .._shared.signals import GracefulStop, LeftToParent, held_back
from ..checkpoints.trainer_view import TrainerView
from ..checkpoints.writer import CheckpointWriter
from ..errors import TrainingInterruptedError
from .next_steps import NextSteps
from .open_window import OpenWindow

try:
    from multiprocessing import resource_tracker
except ImportError:  # Windows has none
    resource_tracker = None


class ShutdownController:
    """Saves and leaves between two steps or epochs after a signal.

    Args:
        trainer: Read for the place in the run and the log.
        window: Known to be open or closed.
        checkpoints: Saves.
        next_steps: Fills the command that goes on.
    """

    def __init__(
        self, trainer: TrainerView, *, window: OpenWindow, checkpoints: CheckpointWriter, next_steps: NextSteps
    ) -> None:
        self._trainer, self._window = trainer, window
        self._checkpoints, self._next_steps = checkpoints, next_steps
        self.asked: GracefulStop | None = None

    def listen(self) -> GracefulStop:
        """Return the context that catches the first signal during training.

        Ranks other than the first go on computing: the first one cannot finish its step without them.
        """
        self.asked = GracefulStop(_say_so, ignore_first=RANK not in {-1, 0})
        return self.asked

    @contextlib.contextmanager
    def pass_on_signals(self) -> Iterator[None]:
        """Let the workers of a multi-GPU run finish their step and save, in the process that only starts them.

        Ctrl-C reaches them by itself, as the terminal sends it to all. SIGTERM comes to this process alone and is passed on.

        Raises:
            TrainingInterruptedError: A signal had asked for it, and they have ended.
        """
        with GracefulStop(_pass_on) as asked:
            try:
                yield
            except subprocess.CalledProcessError as error:
                if asked.requested is None:
                    raise
                name = asked.requested.name
                done = f"{name}: the workers of the multi-GPU run have ended. What they have saved is in {self._trainer.wdir}."
                go_on = f"Go on with:\n{GO_ON} device={self._trainer.args.device}"
                raise TrainingInterruptedError(self._next_steps.filled(f"{done}\n{go_on}"), asked.requested) from error

    def keep_workers(self, event: str) -> None:
        """Shield loader workers from Ctrl-C before they start: the last step may need their batches.

        Args:
            event: The callback event that has just been run.
        """
        if event == "on_train_epoch_start":  # callbacks may have put another loader in
            for loader in (self._trainer.train_loader, getattr(self._trainer, "test_loader", None)):
                if isinstance(loader, DataLoader) and loader.num_workers:
                    _leave_ctrl_c_to_parent(loader)

    def leave_if_asked(self, event: str) -> None:
        """Save and leave after a step or an epoch if a signal came.

        Args:
            event: The callback event that has just been run.

        Raises:
            TrainingInterruptedError: Says what was saved and how to go on.
        """
        trainer = self._trainer
        wish = self.asked.requested if self.asked is not None else None
        if wish is None or trainer.guard is None or trainer.stop:  # a run at its end only has to be closed
            return
        if event == "on_train_batch_end" and not self._window.is_open:
            saved = trainer.args.save and self._checkpoints.save_now(trainer.epoch - 1)
        elif event == "on_fit_epoch_end":
            self._checkpoints.finish()
            saved = trainer.run_log.has_saved(trainer.epoch + 1)  # the loop has just done it, unless the disk was full
        else:
            return
        step = trainer.guard.counts.applied
        done = (
            f"{wish.name}: training stopped in epoch {trainer.epoch + 1}/{trainer.epochs} after {step} optimizer steps."
        )
        if not saved:
            raise TrainingInterruptedError(f"{done} Nothing could be saved{_why(trainer.args.save)}.", wish)
        again = "" if event == "on_fit_epoch_end" else ", and this epoch begins anew"
        all_saved = f"{done} Everything is saved{again}.\nGo on with:\n{GO_ON}"
        raise TrainingInterruptedError(self._next_steps.filled(all_saved), wish)


def _leave_ctrl_c_to_parent(loader: Any) -> None:
    """Start a loader's workers so that Ctrl-C never reaches them."""
    if isinstance(loader.worker_init_fn, LeftToParent):
        return
    loader.worker_init_fn = LeftToParent(loader.worker_init_fn)
    kind: Any = type(loader)
    known = weakref.ref(loader)  # a loader that held itself would not be collected, nor its workers ended, in time

    def start() -> Any:
        if resource_tracker is not None:
            resource_tracker.ensure_running()  # spawning starts it, and that would let the signal through again
        with held_back():
            return kind._get_iterator(known())

    loader._get_iterator = start


def _pass_on(wish: signal.Signals) -> None:
    _say_so(wish)
    if wish is signal.SIGTERM:
        for child in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
                child.send_signal(wish)


def _why(save: bool) -> str:
    return "" if save else " (save=False)"


def _say_so(wish: signal.Signals) -> None:
    LOGGER.info("")  # ends the line of the progress bar
    LOGGER.warning(f"{wish.name}: finishing the step and saving; once more stops at once.")
