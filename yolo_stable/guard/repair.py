"""EMA repair: restores an averaged model that alone is ruined."""

from __future__ import annotations

from .audit import AuditFinding
from .damage import damages
from .escalation import Escalation, EscalationLevel
from .snapshot import Snapshot
from .state import TrainingState


class EmaRepair:
    """Restores the averaged model; training goes on.

    Repairs have no budget: they do no harm. But repaired again and again, the average would stand still at its oldest healthy
    values: the second time within ``every`` steps it restarts from the model.

    Args:
        state: Has the averaged model.
        every: Steps between two snapshots.
    """

    def __init__(self, state: TrainingState, every: int) -> None:
        self._state, self._every = state, every
        self._repaired_at: int | None = None

    def __call__(self, finding: AuditFinding, newest: Snapshot, step: int, lr_factor: float) -> Escalation:
        """Repair it.

        Args:
            finding: What is wrong with it.
            newest: The newest snapshot.
            step: Optimizer steps applied so far.
            lr_factor: The current factor on the learning rate.
        """
        reason = finding.reason
        damage = damages(self._state.live(), finding.names, newest.tensors)
        self._state.restore_ema(newest.tensors, newest.plain)
        if self._repaired_at is not None and step - self._repaired_at <= self._every:
            self._state.renew_ema()
            reason += "; not for the first time: it restarts from the model"
        self._repaired_at = step
        return Escalation(
            level=EscalationLevel.REPAIR,
            reason=reason,
            culprits=finding.names,
            step=step,
            to_step=newest.step,
            lr_factor=lr_factor,
            damage=damage,
        )
