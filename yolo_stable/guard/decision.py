"""Guard decisions: pure rules from numbers, read once, to a verdict with its reason."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .shares import Shares


class GuardVerdict(str, Enum):
    """What the guard does with a micro-batch or a window."""

    BACKWARD = "backward"
    """The micro-batch was healthy and has been back-propagated."""
    REJECT_MICRO_BATCH = "reject_micro_batch"
    """The micro-batch was undone; the others of its window stay."""
    APPLY = "apply"
    """The window was applied as it is."""
    CLIP = "clip"
    """The window was applied with its gradients clipped to ``max_norm``."""
    REJECT_WINDOW = "reject_window"
    """The window was undone with all its micro-batches."""
    ROLL_BACK = "roll_back"
    """Training had diverged: the whole state was rolled back to a snapshot, this window included."""
    EMPTY = "empty"
    """There was no gradient to apply: every micro-batch of the window had been rejected."""


ACCEPTING = frozenset({GuardVerdict.BACKWARD, GuardVerdict.APPLY, GuardVerdict.CLIP})
REJECTING = frozenset({GuardVerdict.REJECT_MICRO_BATCH, GuardVerdict.REJECT_WINDOW})


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """One verdict with its evidence; true if the work was accepted."""

    verdict: GuardVerdict
    reason: str = ""
    """Empty when healthy."""
    norm: float | None = None
    """Global 2-norm of the window's gradients before clipping, unscaled; None for a micro-batch or an empty window."""
    loss: float | None = None
    """The micro-batch's loss as read; None for a window."""
    items: Mapping[str, float] = field(default_factory=dict)
    """The micro-batch's loss items as read."""
    culprits: tuple[str, ...] = ()
    """Names of buffers or parameters that were not finite, the first few."""
    layers: Shares = ()
    """Modules by their share of the squared norm, largest first; only of an applied window, and only if asked for."""
    scale: float | None = None
    """The window's loss scale; only with ``layers``, and only with a scaler."""

    def __bool__(self) -> bool:
        return self.verdict in ACCEPTING

    @property
    def rejected(self) -> bool:
        """Whether something was undone."""
        return self.verdict in REJECTING


NO_GRADIENT = "the loss depends on no trained parameter: no gradient reaches any"
"""Reason of a rejection in which nothing can be learned, such as of a loss that is a constant."""


def judge_micro_batch(
    loss: float, items: Mapping[str, float], buffers_finite: bool, fault: str = ""
) -> tuple[GuardVerdict, str]:
    """Decide on a micro-batch after its forward pass.

    Args:
        loss: The loss.
        items: Its parts, by name.
        buffers_finite: Whether every running statistic is finite after the forward pass.
        fault: What is known to be wrong with the batch itself; empty for nothing.

    Returns:
        ``BACKWARD``, or ``REJECT_MICRO_BATCH`` with all that is wrong.

    Examples:
        >>> judge_micro_batch(1.0, {"box_loss": 1.0}, True)
        (<GuardVerdict.BACKWARD: 'backward'>, '')
        >>> judge_micro_batch(float("inf"), {"box_loss": float("nan")}, True)[1]
        'loss inf, box_loss nan'
    """
    wrong = [fault] if fault else []
    wrong += [f"{name} {value}" for name, value in [("loss", loss), *items.items()] if not math.isfinite(value)]
    if not buffers_finite:
        wrong.append("running statistics of BatchNorm not finite")
    return (GuardVerdict.REJECT_MICRO_BATCH, ", ".join(wrong)) if wrong else (GuardVerdict.BACKWARD, "")


JUMPS_IN_A_ROW = 3
"""Rejections in a row for a jump of running statistics after which the next jump is believed."""


def judge_jump(jump: float, max_jump: float | None, in_a_row: int) -> tuple[GuardVerdict, str]:
    """Decide on a finite micro-batch by what it did to the running statistics.

    Args:
        jump: Largest ``|after| / (|before| + 1)`` over all running statistics.
        max_jump: Largest ratio believed, or None.
        in_a_row: Micro-batches rejected for a jump since the last accepted one.

    Returns:
        ``BACKWARD``, or ``REJECT_MICRO_BATCH`` with the reason.

    Examples:
        >>> judge_jump(5e13, 10.0, in_a_row=0)[1]
        'a running statistic of BatchNorm jumped to 5e+13 times what it was'
        >>> judge_jump(5e13, 10.0, in_a_row=3)[0]
        <GuardVerdict.BACKWARD: 'backward'>
    """
    if max_jump is None or jump <= max_jump or in_a_row >= JUMPS_IN_A_ROW:
        return GuardVerdict.BACKWARD, ""
    # The autopsy reads how far out of these words, also of earlier runs (``autopsy/symptom.py``).
    return GuardVerdict.REJECT_MICRO_BATCH, f"a running statistic of BatchNorm jumped to {jump:.3g} times what it was"


def judge_window(norm: float, max_norm: float | None, reject_norm: float | None) -> tuple[GuardVerdict, str]:
    """Decide on a window before the optimizer step.

    Args:
        norm: Global 2-norm of the unscaled gradients; not finite if any gradient is not, or if the squares of finite ones
            overflow (an element above 1.8e19 in float32).
        max_norm: Clip limit, or None.
        reject_norm: Largest norm believed, or None.

    Returns:
        ``APPLY``, ``CLIP`` or ``REJECT_WINDOW`` with the reason.

    Examples:
        >>> judge_window(3.0, 10.0, 1e12)
        (<GuardVerdict.APPLY: 'apply'>, '')
        >>> judge_window(float("nan"), None, None)
        (<GuardVerdict.REJECT_WINDOW: 'reject_window'>, 'gradient norm nan')
    """
    if not math.isfinite(norm):
        return GuardVerdict.REJECT_WINDOW, f"gradient norm {norm}"
    if reject_norm is not None and not (norm <= reject_norm):
        return GuardVerdict.REJECT_WINDOW, f"gradient norm {norm:.3g} above reject_norm {reject_norm:.3g}"
    if max_norm is not None and not (norm <= max_norm):
        return GuardVerdict.CLIP, f"gradient norm {norm:.4g} clipped to {max_norm:g}"
    return GuardVerdict.APPLY, ""
