"""Limits: how often the guard has acted, and when it is enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import InvalidCallError, TrainingHaltedError
from .config import GuardConfig
from .damage import Damage
from .decision import REJECTING, Decision, Verdict
from .recent import STRETCH, Recent


@dataclass(slots=True)
class Counts:
    """What happened since the guard was made, or since the state that was loaded; only ``consecutive`` and ``jumps`` reset."""

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
    """Times that the whole state was put back to a snapshot."""

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

    def load(self, values: Any) -> None:
        """Go on from what :meth:`to_dict` returned.

        Raises:
            InvalidCallError: It is something else; nothing has been changed.
        """
        valid = self.to_dict()
        if (
            not isinstance(values, Mapping)
            or set(values) != set(valid)
            or any(type(value) is not int or value < 0 for value in values.values())
        ):
            raise InvalidCallError(
                f"This is not the state of a StepGuard: counts={values!r}. They must be whole numbers of 0 or more named"
                f" {', '.join(valid)}."
            )
        for name, value in values.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, int]:
        """Return all counters as plain integers."""
        return dataclasses.asdict(self)


class Passed(NamedTuple):
    """A limit that was passed."""

    reason: str
    advice: Advice
    for_good: bool
    """Whether going back cannot help."""


class Advice(NamedTuple):
    """What to do about a halt."""

    text: str
    next: str = ""
    """Commands, with ``DATA`` and ``LAST`` where the trainer puts its names in."""


# The words of `_shared/shell_text.py`, which the guard does not know; its tests hold them together.
_CHECK = "What is wrong with the data set:\nyolo-stable check DATA"
_GO_ON = "yolo-stable train DATA model=LAST resume=True"
_WHEN_SETTLED = f"When that is settled, go on:\n{_GO_ON}"
ROW_ADVICE = Advice(
    "So many in a row mean that the data, the weights, the learning rate or the device are at fault, not one batch: look at"
    " the images that guard.jsonl names",
    f"{_CHECK}\n{_WHEN_SETTLED}",
)
ASTRAY_ADVICE = Advice(
    "No batch is at fault but training itself: lower the learning rate (lr0=); when numbers were ruined with an ordinary one,"
    " check the device and its memory",
    "To go on from it with small steps:\nyolo-stable train DATA model=LAST --preset recovery",
)
RUINED_ADVICE = Advice(
    "All gradients that were applied were finite, so that something else makes this number: the device or its memory, code of"
    " your own that writes to weights or optimizer, or a setting of the optimizer such as eps=0. The state that was put back"
    " is healthy",
    f"Whether the device computes rightly under load, in 10 minutes:\nyolo-stable validate --stress 10\n{_WHEN_SETTLED}",
)


def limit_passed(counts: Counts, recent: Recent, config: GuardConfig) -> Passed | None:
    """Return which limit the rejections have passed, if any.

    Args:
        counts: The counters.
        recent: The newest windows.
        config: Holds the limits.
    """
    rejected, in_a_row = counts.rejected, counts.consecutive
    if config.max_total is not None and rejected > config.max_total:
        reason = f"{rejected} rejections in all, more than guard.max_total={config.max_total}"
        return Passed(reason, _too_many("max_total", 2 * config.max_total), True)
    share, windows = config.max_share, recent.windows
    if share is not None and windows >= STRETCH and recent.lost > share * windows:
        reason = (
            f"{recent.lost} of the last {windows} windows were rejected, more than guard.max_share={share:g} of them"
        )
        return Passed(reason, _too_many("max_share", None), True)
    if in_a_row > config.max_consecutive:
        reason = f"{in_a_row} rejections in a row, more than guard.max_consecutive={config.max_consecutive}"
        return Passed(reason, ROW_ADVICE, False)
    return None


def _too_many(setting: str, more: int | None) -> Advice:
    """Advise where a limit of all rejections was passed, which going on would pass again with the next one."""
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
    damage: Damage | None = None,
) -> TrainingHaltedError:
    """Return the error that ends the run: what was seen, where, how often, and what to try.

    Args:
        counts: The counters.
        reason: Why it is enough.
        advice: What to try.
        last: The rejection that was counted last, if that was the reason; None: the state itself went astray.
        rollbacks: How many were tried against it.
        damage: The number that was ruined, if one was.
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
