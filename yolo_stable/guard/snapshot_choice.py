"""Snapshot choice: which snapshot a rollback restores; the same on all ranks, though each knows only its own loss."""

from __future__ import annotations

from ..errors import TrainingHaltedError
from .config import GuardConfig
from .ranks import Ranks
from .snapshot import Snapshot, SnapshotRing


def choose(ring: SnapshotRing, step: int, ranks: Ranks) -> Snapshot | None:
    """Return the newest snapshot that is no newer than ``step``.

    With several ranks: the newest such snapshot that all have and none found suspicious, or else the oldest that all have. It
    exists as long as all ranks take snapshots at the same steps: at most the newest is missing on a rank, which makes all of
    them roll back at the next window.

    Args:
        ring: This rank's snapshots.
        step: Optimizer steps applied, at most.
        ranks: The other processes that train the model.

    Raises:
        TrainingHaltedError: The ranks have no snapshot in common; raised on all of them.

    Syncs: with several ranks a few collectives of one number, in which all take part.
    """
    if not ranks.shared:
        return ring.at_or_before(step)
    while (step := ranks.lowest(ring.trusted(step))) >= 0:
        if not ranks.any(ring.trusted(step) != step):
            return ring.at_or_before(step)
        step -= 1
    oldest = ring.oldest
    step = ranks.highest(-1 if oldest is None else oldest.step)
    chosen = ring.at_or_before(step)
    if ranks.any((-1 if chosen is None else chosen.step) != step):
        own = ", ".join(str(kept.step) for kept in ring) or "none"
        raise TrainingHaltedError(
            f"The ranks have no snapshot in common, so none was restored: this rank has those of steps {own}; the newest of all"
            f" ranks' oldest snapshots is of step {step}. Call resync(), load_state_dict() and settle() at the same steps on all"
            " ranks, then continue from the last checkpoint."
        )
    return chosen


def copies(config: GuardConfig, ranks: Ranks) -> int:
    """Return how many snapshots to keep; with several ranks enough to reach back before suspicious steps."""
    if not ranks.shared or (config.max_loss_rise is None and config.max_norm_rise is None):
        return config.snapshots
    return max(config.snapshots, config.patience // (config.snapshot_every or 1) + 2)
