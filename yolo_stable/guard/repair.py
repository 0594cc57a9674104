"""Repair of an averaged model that is ruined alone."""

from __future__ import annotations

from .audit import Finding
from .damage import damages
from .ladder import Climb, Rung
from .snapshot import Snapshot
from .state import TrainingState


class EmaRepair:
    """Puts the averaged model back; training goes on as if nothing had happened.

    There is no budget for it, as it does no harm. Ruined again and again, the average would stand still at its oldest healthy
    values: so the second time within ``every`` steps it begins anew from the model's.

    Args:
        state: Has the averaged model.
        every: Steps between two snapshots.
    """

    def __init__(self, state: TrainingState, every: int) -> None:
        self._state, self._every = state, every
        self._repaired_at: int | None = None

    def __call__(self, finding: Finding, newest: Snapshot, step: int, lr_factor: float) -> Climb:
        """Repair it.

        Args:
            finding: What is wrong with it.
            newest: The newest snapshot.
            step: Optimizer steps applied so far.
            lr_factor: What the learning rate is multiplied by.

        Returns:
            What was done, to be told.
        """
        reason = finding.reason
        damage = damages(self._state.live(), finding.names, newest.tensors)
        self._state.restore_ema(newest.tensors, newest.plain)
        if self._repaired_at is not None and step - self._repaired_at <= self._every:
            self._state.renew_ema()
            reason += "; not for the first time: it begins anew from the model"
        self._repaired_at = step
        return Climb(
            rung=Rung.REPAIR,
            reason=reason,
            culprits=finding.names,
            step=step,
            to_step=newest.step,
            lr_factor=lr_factor,
            damage=damage,
        )
