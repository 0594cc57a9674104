"""Escalation: pure rules for what follows when rejecting a batch is not enough: roll back, lower the precision, halt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .config import GuardConfig
from .damage import StateDamage


class EscalationLevel(str, Enum):
    """What the guard does; each level is harder than the one before."""

    REPAIR = "repair"
    """Restores the averaged model from the newest snapshot; training itself is healthy."""
    ROLL_BACK = "roll_back"
    """Restores the whole state from a snapshot; after a divergence with half the learning rate."""
    LOWER_PRECISION = "lower_precision"
    """Rolls back and continues in the next safer precision."""
    HALT = "halt"
    """Ends training: nothing is left to try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Escalation:
    """One escalation, with its reason."""

    level: EscalationLevel
    reason: str
    culprits: tuple[str, ...] = ()
    """Tensors that were not finite or absurd, the first few."""
    step: int = 0
    """Optimizer steps applied when it happened."""
    to_step: int | None = None
    """Steps applied in the restored state."""
    lr_factor: float = 1.0
    """Factor on the learning rate from here on."""
    precision: str = ""
    """The new precision, if it was lowered."""
    lost: int = 0
    """Optimizer steps that this escalation undid; less than ``step - to_step`` if earlier ones had undone some of these."""
    damage: tuple[StateDamage, ...] = ()
    """What was wrong with the state before it was restored."""
    diverged: bool = False
    """Whether training itself diverged; else batches were rejected in a row, or numbers were ruined."""


def next_level(rollbacks: int, config: GuardConfig, *, has_snapshot: bool, can_lower: bool) -> EscalationLevel:
    """Decide what follows when rejecting a batch was not enough.

    Args:
        rollbacks: Rollbacks that count: after a divergence those since the backoff's budget was full; otherwise those of
            :meth:`~yolo_stable.guard.setbacks.Setbacks.before`.
        config: Holds the budget, the same for both.
        has_snapshot: Whether there is a state to restore.
        can_lower: Whether there is a safer precision.

    Examples:
        >>> next_level(0, GuardConfig(), has_snapshot=True, can_lower=False).value
        'roll_back'
        >>> next_level(8, GuardConfig(max_rollbacks=8), has_snapshot=True, can_lower=False).value
        'halt'
    """
    if not has_snapshot:
        return EscalationLevel.HALT
    if rollbacks < config.max_rollbacks:
        return EscalationLevel.ROLL_BACK
    return EscalationLevel.LOWER_PRECISION if can_lower else EscalationLevel.HALT


def most_micro_batches(config: GuardConfig, precisions: int, accumulate: int = 1) -> int:
    """Return after how many micro-batches at most a fault that never goes away halts the run.

    Such a fault makes every batch bad, or every window's gradients, or ruins the state in every step, or puts the loss out of
    line from the first step after each rollback on. No healthy snapshot is taken then, so every escalation counts. A fault that
    spares some windows halts only by ``max_share``, or by ruining the same numbers again at once.

    Args:
        config: Holds the budgets.
        precisions: How many precisions there are to try, the first one included.
        accumulate: Micro-batches in a window.
    """
    # Two more: the halt itself, and one fault that is taken for another, which has a budget of its own.
    escalations = config.max_rollbacks * precisions + 2
    # What leads to one: rejections past the limit, steps until the audit, or high losses past the patience.
    windows = max(config.max_consecutive + 1, config.snapshot_every or 1, config.patience)
    return escalations * windows * accumulate
