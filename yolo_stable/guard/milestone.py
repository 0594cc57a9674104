"""The state of the best validation: what a run that has collapsed goes back to."""

from __future__ import annotations

from torch import Tensor

from .ladder import Brake
from .snapshot import Snapshot
from .state import TrainingState


class Milestone:
    """One snapshot beside the ring, which a collapse outlives: it shows after epochs, not after steps.

    Args:
        state: What is kept.
    """

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self.snapshot: Snapshot | None = None
        """The state of the best validation, if one was kept."""
        self._collapses = 0

    def keep(self, step: int, trained: int, live: dict[str, Tensor], *, on_host: bool) -> None:
        """Keep the state as it is now.

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

    def collapsed(self, brake: Brake) -> None:
        """Put on the brake for good when training has collapsed again on the way from the same state.

        However long that took: epochs are longer than the ramp of the learning rate, and than the calm that fills the budget.
        """
        if self._collapses:
            brake.lower_ceiling()
        brake.rollbacks = max(brake.rollbacks, self._collapses)
        self._collapses += 1

    def forget(self) -> None:
        """Drop it: the state was changed from outside."""
        self.snapshot, self._collapses = None, 0
