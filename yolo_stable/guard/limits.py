"""How often the guard has acted, and when it is enough."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ..errors import TrainingHaltedError
from .config import GuardConfig
from .decision import REJECTING, Decision, Verdict


@dataclass(slots=True)
class Counts:
    """What happened since the guard was made (or since the state that was loaded); only ``consecutive`` ever resets."""

    micro_batches: int = 0
    """Micro-batches judged."""
    applied: int = 0
    """Optimizer steps taken, clipped ones included."""
    clipped: int = 0
    """Optimizer steps taken with clipped gradients."""
    rejected_micro_batches: int = 0
    """Micro-batches undone."""
    rejected_windows: int = 0
    """Windows undone."""
    consecutive: int = 0
    """Rejections since the last optimizer step; 0 after each step."""

    jumps: int = 0
    """Micro-batches rejected for a jump of running statistics since the last one that was accepted."""

    @property
    def rejected(self) -> int:
        """Rejections of both kinds."""
        return self.rejected_micro_batches + self.rejected_windows

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        verdict = decision.verdict
        if verdict in {Verdict.BACKWARD, Verdict.REJECT_MICRO_BATCH}:
            self.micro_batches += 1
        if verdict in {Verdict.APPLY, Verdict.CLIP}:
            self.applied += 1
            self.clipped += verdict is Verdict.CLIP
            self.consecutive = 0
        elif verdict in REJECTING:
            self.rejected_micro_batches += verdict is Verdict.REJECT_MICRO_BATCH
            self.rejected_windows += verdict is Verdict.REJECT_WINDOW
            self.consecutive += 1

    def to_dict(self) -> dict[str, int]:
        """Return all counters as plain integers."""
        return dataclasses.asdict(self)


def check_limits(counts: Counts, config: GuardConfig, last: Decision) -> None:
    """Raise when rejections have passed a limit.

    Args:
        counts: The counters, with ``last`` counted.
        config: Holds the limits.
        last: The rejection that was counted last.

    Raises:
        TrainingHaltedError: Says what was seen, where, how often, and what to try.
    """
    if counts.consecutive > config.max_consecutive:
        limit = f"{counts.consecutive} rejections in a row, more than guard.max_consecutive={config.max_consecutive}"
        advice = (
            "So many in a row mean that the data, the weights or the device are at fault, not one batch: look at the"
            " images named in guard.jsonl, start again from a checkpoint you trust, or lower the learning rate"
        )
    elif counts.rejected > config.max_total:
        limit = f"{counts.rejected} rejections in all, more than guard.max_total={config.max_total}"
        advice = "Remove the images that guard.jsonl names most often, or raise guard.max_total"
    else:
        return
    place = f" in {', '.join(last.culprits)}" if last.culprits else ""
    raise TrainingHaltedError(
        f"Training halted after {counts.micro_batches} micro-batches and {counts.applied} optimizer steps: {limit}."
        f" Last seen: {last.reason}{place}. {advice}."
    )
