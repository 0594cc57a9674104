"""Accumulation across a resume: the resumed run closes a window that was open at the save at the same batch."""

from __future__ import annotations

from typing import Any

FAR = 1 << 40
"""More batches than any run has."""


class Cadence:
    """Follows Ultralytics' ``last_opt_step``, a local variable of its loop, which begins anew with a resumed run.

    The loop steps when ``ni - last_opt_step >= accumulate``, with the batches ``ni`` counted over all epochs. After a resume it
    takes the very first batch for the end of a window. It is held back by the one number in there that is the trainer's.
    """

    def __init__(self) -> None:
        self.last_step = -1
        """Batch after which the last window was closed, as the loop knows it; -1: none yet."""
        self._held: int | None = None
        self._nominal = 1

    def nominal(self, trainer: Any) -> int:
        """Return how many batches make a window at present."""
        return self._nominal if self._held else trainer.accumulate

    def began(self) -> None:
        """The loop has forgotten its last step (out of memory, an epoch done again)."""
        self.last_step, self._held = -1, None

    def stepped(self, trainer: Any, batch: int) -> None:
        """The loop has closed a window.

        Args:
            trainer: The trainer.
            batch: Number of the batch within its epoch, from 1.
        """
        self.last_step = _number(trainer, batch)

    def continue_from(self, last_step: int) -> None:
        """Continue the windows of a run whose last one was closed after batch ``last_step``."""
        self.last_step, self._held = last_step, 0

    def before_forward(self, trainer: Any, batch: int) -> None:
        """Hold the loop back until the window that it does not know of is full; called after the warm-up's arithmetic.

        Args:
            trainer: The trainer.
            batch: Number of the batch within its epoch, from 1.
        """
        if self._held is None:
            return
        if trainer.accumulate != self._held:  # the warm-up has set it anew
            self._nominal = trainer.accumulate
        ni = _number(trainer, batch)
        if ni - self.last_step >= self._nominal:
            trainer.accumulate, self._held = self._nominal, None
        else:
            trainer.accumulate = self._held = FAR + ni


def _number(trainer: Any, batch: int) -> int:
    return batch - 1 + len(trainer.train_loader) * trainer.epoch
