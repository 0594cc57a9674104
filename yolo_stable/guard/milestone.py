"""Milestone: the state of the best validation, to which a collapsed run rolls back."""

from __future__ import annotations

from torch import Tensor

from .lr_backoff import LearningRateBackoff
from .snapshot import Snapshot
from .state import TrainingState


class Milestone:
    """One snapshot beside the ring: a collapse shows after epochs, when the ring has long moved on.

    Args:
        state: What is kept.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self.snapshot: Snapshot | None = None
        """The state of the best validation, if one was kept."""
        self._collapses = 0

    def keep(self, step: int, trained: int, live: dict[str, Tensor], *, on_host: bool) -> None:
        """Keep the current state.

        Args:
            step: Optimizer steps applied so far.
            trained: Of these, how many are in the state.
            live: The state's tensors, found healthy.
            on_host: Whether to keep it on the host.

        Syncs: none.
        """
        if self.snapshot is None or not self.snapshot.fits(live):
            self.snapshot = None  # its memory is free before more is asked for
            self.snapshot = Snapshot(live, on_host)
        self.snapshot.fill(step, live, self._state)
        self.snapshot.trained = trained
        self._collapses = 0

    def collapsed(self, backoff: LearningRateBackoff) -> None:
        """Lower the ceiling when training has collapsed again on the way from the same state.

        The time in between does not count: epochs are longer than the ramp, and than the calm that refills the budget.
        """
        if self._collapses:
            backoff.lower_ceiling()
        backoff.rollbacks = max(backoff.rollbacks, self._collapses)
        self._collapses += 1

    def forget(self) -> None:
        """Drop it: the state was changed from outside."""
        self.snapshot, self._collapses = None, 0
