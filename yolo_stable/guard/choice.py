"""Choice of the snapshot that is put back: with several ranks the same one on all, though each only knows its own loss."""

from __future__ import annotations

from ..errors import TrainingHaltedError
from .config import GuardConfig
from .ranks import Ranks
from .snapshot import Snapshot, SnapshotRing


def choose(ring: SnapshotRing, step: int, ranks: Ranks) -> Snapshot | None:
    """Return the newest snapshot that is not younger than ``step``.

    With several ranks: the newest such one that all have and none found suspicious; or else the oldest one that all have. That
    one is there as long as all take their snapshots at the same steps: at most the newest is missing on a rank, which then makes
    all of them go back at the next window.

    Args:
        ring: This rank's snapshots.
        step: Optimizer steps applied, at most.
        ranks: The other processes that train the model.

    Raises:
        TrainingHaltedError: No snapshot is common to all; on all of them alike.

    Syncs: with several ranks a few collectives of one number, which all have to take part in.
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
            "The ranks have no snapshot in common, so none was put back: the steps of this rank's are"
            f" {own}; the newest of all ranks' oldest ones is of step {step}. All ranks have to call resync(),"
            " load_state_dict() and settle() at the same steps. Mend that, and go on from the last checkpoint."
        )
    return chosen


def copies(config: GuardConfig, ranks: Ranks) -> int:
    """Return how many snapshots to keep; with several ranks enough to reach behind the steps in which one is suspicious."""
    if not ranks.shared or (config.max_loss_rise is None and config.max_norm_rise is None):
        return config.snapshots
    return max(config.snapshots, config.patience // (config.snapshot_every or 1) + 2)
