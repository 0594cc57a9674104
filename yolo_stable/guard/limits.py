"""Limits: counters of what the guard did, and when training halts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import InvalidCallError, TrainingHaltedError
from .config import GuardConfig
from .damage import StateDamage
from .decision import REJECTING, Decision, GuardVerdict
from .recent import STRETCH, RecentWindows
from .setting_checks import is_count, is_state


@dataclass(slots=True)
class Counts:
    """Counts over the whole run; only ``consecutive`` and ``jumps`` reset."""

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

    rollbacks: int = 0
    """Rollbacks of the whole state to a snapshot."""

    @property
    def rejected(self) -> int:
        """Rejections of both kinds."""
        return self.rejected_micro_batches + self.rejected_windows

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        verdict = decision.verdict
        if verdict in {GuardVerdict.BACKWARD, GuardVerdict.REJECT_MICRO_BATCH}:
            self.micro_batches += 1
        if verdict in {GuardVerdict.APPLY, GuardVerdict.CLIP}:
            self.applied += 1
            self.clipped += verdict is GuardVerdict.CLIP
            self.consecutive = 0
        elif verdict in REJECTING:
            self.rejected_micro_batches += verdict is GuardVerdict.REJECT_MICRO_BATCH
            self.rejected_windows += verdict is GuardVerdict.REJECT_WINDOW
            self.consecutive += 1

    def load(self, values: Any) -> None:
        """Continue from :meth:`to_dict`.

        Raises:
            InvalidCallError: ``values`` is something else; nothing has been changed.
        """
        valid = self.to_dict()
        if not is_state(values, dict.fromkeys(valid, is_count)):
            raise InvalidCallError(
                f"This is not the state of a StepGuard: counts={values!r}. They must be whole numbers of 0 or more named"
                f" {', '.join(valid)}."
            )
        for name, value in values.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, int]:
        """Return all counters as plain integers."""
        return dataclasses.asdict(self)


class PassedLimit(NamedTuple):
    """A limit that was passed."""

    reason: str
    advice: Advice
    for_good: bool
    """Whether a rollback cannot help."""


class Advice(NamedTuple):
    """What to do after a halt."""

    text: str
    next: str = ""
    """Commands; the trainer replaces ``DATA`` and ``LAST`` by its names."""


# The words of `_shared/shell_text.py`, which the guard does not import; its tests hold them together.
_CHECK = "What is wrong with the data set:\nyolo-stable check DATA"
_GO_ON = "yolo-stable train DATA model=LAST resume=True"
_WHEN_SETTLED = f"When that is settled, go on:\n{_GO_ON}"
ROW_ADVICE = Advice(
    "So many in a row mean that the data, the weights, the learning rate or the device are at fault, not one batch: look at"
    " the images that guard.jsonl names",
    f"{_CHECK}\n{_WHEN_SETTLED}",
)
ASTRAY_ADVICE = Advice(
    "Training itself is at fault, not a batch: lower the learning rate (lr0=); if an ordinary one ruins numbers, check the device"
    " and its memory",
    "To go on from it with small steps:\nyolo-stable train DATA model=LAST --preset recovery",
)
RUINED_ADVICE = Advice(
    "All applied gradients were finite: something else makes this number, such as the device or its memory, your own code that"
    " writes to weights or optimizer, or a setting of the optimizer such as eps=0. The restored state is healthy",
    f"Whether the device computes rightly under load, in 10 minutes:\nyolo-stable validate --stress 10\n{_WHEN_SETTLED}",
)


def limit_passed(counts: Counts, recent: RecentWindows, config: GuardConfig) -> PassedLimit | None:
    """Return which limit of ``config`` the rejections have passed, if any."""
    rejected, in_a_row = counts.rejected, counts.consecutive
    if config.max_total is not None and rejected > config.max_total:
        reason = f"{rejected} rejections in all, more than guard.max_total={config.max_total}"
        return PassedLimit(reason, _too_many("max_total", 2 * config.max_total), True)
    share, windows = config.max_share, recent.windows
    if share is not None and windows >= STRETCH and recent.lost > share * windows:
        reason = (
            f"{recent.lost} of the last {windows} windows were rejected, more than guard.max_share={share:g} of them"
        )
        return PassedLimit(reason, _too_many("max_share", None), True)
    if in_a_row > config.max_consecutive:
        reason = f"{in_a_row} rejections in a row, more than guard.max_consecutive={config.max_consecutive}"
        return PassedLimit(reason, ROW_ADVICE, False)
    return None


def _too_many(setting: str, more: int | None) -> Advice:
    """Return advice for a limit that the next rejection would pass again."""
    given = f"guard.{setting}={'none' if more is None else more}"
    text = f"Remove the images that guard.jsonl names most often, or raise guard.{setting}"
    return Advice(text, f"{_CHECK}\nTo go on with another limit:\n{_GO_ON} {given}")


def halted(
    counts: Counts,
    reason: str,
    advice: Advice,
    last: Decision | None,
    *,
    rollbacks: int = 0,
    damage: StateDamage | None = None,
) -> TrainingHaltedError:
    """Return the error that ends the run: what was seen, where, how often, and what to try.

    Args:
        counts: The counters.
        reason: Why training halts.
        advice: What to try.
        last: The last rejection, if that was the reason; None: the state itself went astray.
        rollbacks: How many were tried.
        damage: The number that was ruined, if any.
    """
    if rollbacks:
        reason += f"; {rollbacks} rollbacks did not help"
    place = f" in {', '.join(last.culprits)}" if last is not None and last.culprits else ""
    seen = f" Last seen: {last.reason}{place}." if last is not None and last.rejected else ""
    if damage is not None:
        seen += f" Ruined: {damage}."
    return TrainingHaltedError(
        f"Training halted after {counts.micro_batches} micro-batches and {counts.applied} optimizer steps: {reason}.{seen}",
        f"{advice.text}.",
        advice.next,
    )
