"""Which snapshot is put back: with several ranks the same one on all, though each only knows its own loss."""

from __future__ import annotations

from .config import GuardConfig
from .ranks import Ranks
from .snapshot import Snapshot, SnapshotRing


def choose(ring: SnapshotRing, step: int, ranks: Ranks) -> Snapshot | None:
    """Return the newest snapshot that is not younger than ``step``.

    With several ranks: the newest such one that all have and none found suspicious; or else the oldest one that all have. That
    one is always there: at most the newest is missing on a rank, which then makes all of them go back at the next window.

    Args:
        ring: This rank's snapshots.
        step: Optimizer steps applied, at most.
        ranks: The other processes that train the model.

    Syncs: with several ranks a few collectives of one number, which all have to take part in.
    """
    if not ranks.shared:
        return ring.at_or_before(step)
    while (step := ranks.lowest(ring.trusted(step))) >= 0:
        if not ranks.any(ring.trusted(step) != step):
            return ring.at_or_before(step)
        step -= 1
    oldest = ring.oldest
    return ring.at_or_before(-ranks.lowest(-(-1 if oldest is None else oldest.step)))


def copies(config: GuardConfig, ranks: Ranks) -> int:
    """Return how many snapshots to keep; with several ranks enough to reach behind the steps in which one is suspicious."""
    if not ranks.shared or (config.max_loss_rise is None and config.max_norm_rise is None):
        return config.snapshots
    return max(config.snapshots, config.patience // (config.snapshot_every or 1) + 2)
