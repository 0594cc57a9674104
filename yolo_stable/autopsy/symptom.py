"""Symptom: what training saw when it rejected a batch, and how to recognise it in a replay."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

MAX_JUMP = 10.0
"""A running statistic that a replay moves further than this is sick; see ``guard.max_jump``."""
RAISED = "the loss raised"
"""In the reason of a batch whose loss raised."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Symptom:
    """What training saw of one rejected batch; what is not known is left out."""

    kind: str = "micro_batch"
    """``"micro_batch"`` (after a forward pass), ``"window"`` (before a step) or ``"state"`` (an audit, or a divergence)."""
    reason: str = ""
    """The guard's words."""
    loss: float | None = None
    """Of the micro-batch, before any loss scale."""
    items: Mapping[str, float] = field(default_factory=dict)
    """Parts of the loss."""
    norm: float | None = None
    """Of the window's gradients, unscaled."""
    scale: float = 1.0
    """What the loss was multiplied by before its backward pass."""
    culprits: tuple[str, ...] = ()
    """Names of non-finite buffers or parameters."""
    fault: str = ""
    """What was wrong with the labels, in words."""
    rows: tuple[int, ...] = ()
    """Guilty label rows in the batch, from 0."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """Digests of the results of the pass, as `Location.digests`."""

    @property
    def signs(self) -> frozenset[str]:
        """What was sick: ``loss``, ``item NAME``, ``buffers``, ``jump``, ``gradients`` (not finite), ``norm`` (absurd)."""
        found = set(_bad_numbers(self.loss, self.items))
        if self.norm is not None:
            if not math.isfinite(self.norm):
                found.add("gradients")
            elif self.kind == "window":
                found.add("norm")
        if "jumped" in self.reason:
            found.add("jump")
        elif self.kind == "micro_batch" and (self.culprits or "statistics" in self.reason):
            found.add("buffers")
        elif self.kind == "window" and not found:
            found.add("gradients")
        return frozenset(found)

    @property
    def backward(self) -> bool:
        """Whether only a backward pass shows the fault."""
        return not self.signs & {"loss", "buffers", "jump"} and bool(self.signs & {"gradients", "norm"})

    @property
    def max_norm(self) -> float:
        """A norm above this is sick in a replay: the geometric mean of 1 and the seen norm."""
        return math.sqrt(self.norm) if "norm" in self.signs and self.norm is not None and self.norm > 1 else math.inf

    @property
    def max_jump(self) -> float:
        """A jump of running statistics above this is sick in a replay; halfway again, since a part of a batch moves them less."""
        found = re.search(r"jumped to ([0-9.e+]+) times", self.reason)
        return (
            max(MAX_JUMP, math.sqrt(float(found[1]))) if found else math.inf if "jump" not in self.signs else MAX_JUMP
        )


def signs_of(
    loss: float | None,
    items: Mapping[str, float],
    *,
    buffers: Iterable[str] = (),
    gradients: Iterable[str] = (),
    nan_only: bool = False,
) -> frozenset[str]:
    """Return what is sick in the numbers of a replay, in the words of :attr:`Symptom.signs`.

    Examples:
        >>> sorted(signs_of(float("inf"), {"box_loss": float("nan"), "cls_loss": 1.0}))
        ['item box_loss', 'loss']
    """
    found = set(_bad_numbers(loss, items, nan_only))
    found |= {"buffers"} if tuple(buffers) else set()
    found |= {"gradients"} if tuple(gradients) else set()
    return frozenset(found)


def agree(seen: frozenset[str], again: frozenset[str]) -> bool:
    """Say whether a replay is sick in the same way as the training.

    Args:
        seen: Signs in training; empty if only words are known: then any sign counts.
        again: Signs in the replay.

    Examples:
        >>> agree(frozenset({"loss", "item box_loss"}), frozenset({"loss", "item cls_loss"}))
        False
        >>> agree(frozenset({"gradients"}), frozenset({"loss"}))
        False
    """
    items = {sign for sign in seen if sign.startswith("item ")}
    return bool((items or seen) & again) if seen else bool(again)


def same_bits(seen: Symptom, loss: float | None, items: Mapping[str, float], digests: Mapping[str, str]) -> bool:
    """Say whether a replay gave the same numbers: loss, all items, and the digests that both have.

    For a window, which has no loss, the digests decide.
    """
    if seen.loss is None and not seen.digests:
        return False
    if seen.loss is not None and (loss is None or not _equal(seen.loss, loss)):
        return False
    if any(name not in items or not _equal(value, items[name]) for name, value in seen.items.items()):
        return False
    return all(digests.get(name, digest) == digest for name, digest in seen.digests.items())


def _equal(a: float, b: float) -> bool:
    return a == b or (a != a and b != b)


def _bad_numbers(loss: float | None, items: Mapping[str, float], nan_only: bool = False) -> Iterable[str]:
    for name, value in [("loss", loss), *((f"item {name}", value) for name, value in items.items())]:
        if value is not None and (value != value if nan_only else not math.isfinite(value)):
            yield name
