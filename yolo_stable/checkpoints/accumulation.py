"""Accumulation across a resume: an open window closes at the same batch as in the run that was saved."""

from __future__ import annotations

from .trainer_view import TrainerView

FAR = 1 << 40
"""More batches than any run has."""


class Cadence:
    """Mirrors Ultralytics' ``last_opt_step``, a local variable of its loop that starts anew in a resumed run.

    The loop steps when ``ni - last_opt_step >= accumulate``, with the batches ``ni`` counted over all epochs. After a resume it
    takes the very first batch for the end of a window. It is held back by the one number in there that is the trainer's.
    """

    def __init__(self) -> None:
        self.last_step = -1
        """Batch after which the last window was closed, as the loop knows it; -1: none yet."""
        self._held: int | None = None
        self._nominal = 1

    def nominal(self, trainer: TrainerView) -> int:
        """Return the current number of batches in a window."""
        return self._nominal if self._held else trainer.accumulate

    def began(self) -> None:
        """Note that the loop has forgotten its last step (out of memory)."""
        self.last_step, self._held = -1, None

    def stepped(self, trainer: TrainerView) -> None:
        """Note that the loop closed a window with the current batch."""
        self.last_step = _number(trainer)

    def continue_from(self, last_step: int) -> None:
        """Continue the windows of a run whose last one was closed after batch ``last_step``."""
        self.last_step, self._held = last_step, 0

    def before_forward(self, trainer: TrainerView) -> int | None:
        """Return what ``accumulate`` has to be to delay the loop's step until a window that it does not know of is full.

        Called after the warm-up's arithmetic. None: leave it as it is, as in every run but at the start of a resumed one.

        Args:
            trainer: Read for the batch at hand, and ``accumulate`` as it is.
        """
        if self._held is None:
            return None
        if trainer.accumulate != self._held:  # the warm-up has set it anew
            self._nominal = trainer.accumulate
        ni = _number(trainer)
        if ni - self.last_step >= self._nominal:
            self._held = None
            return self._nominal
        self._held = FAR + ni
        return self._held


def _number(trainer: TrainerView) -> int:
    """Return the number of the batch at hand over all epochs, from 0."""
    return trainer.batch_number - 1 + len(trainer.train_loader) * trainer.epoch
