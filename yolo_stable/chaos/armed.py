"""Armed fault: a fault in one run, with its batch, its number of firings, and the truth about it."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from torch import Tensor

from ..errors import InvalidCallError

NAN, INF = math.nan, math.inf


class Truth(NamedTuple):
    """What an autopsy should find; the first three say where, and a name that the fault does not determine is empty."""

    phase: str
    """``data``, ``forward``, ``loss``, ``backward``, ``step`` or ``state``."""
    module: str
    """As in ``named_modules``."""
    op: str
    """Such as ``aten.div.Tensor``; of a backward fault, the operation of the backward pass."""
    forward_op: str = ""
    """Of a backward fault: the operation whose gradient broke."""
    cause: str = ""
    """If only one is right: ``data``, ``weights``, ``precision``, ``hardware transient``, ``hardware persistent``."""


class Planned(Protocol):
    """A fault as data, with a place and a time."""

    @property
    def place(self) -> str:
        """Where it is put."""
        ...

    @property
    def value(self) -> float:
        """What is put there."""
        ...

    @property
    def at(self) -> tuple[int, ...]:
        """The batches at which it fires, from 0."""
        ...

    @property
    def since(self) -> int | None:
        """The first of the batches at which it always fires, from 0."""
        ...

    @property
    def truth(self) -> Truth:
        """What is known before it fires."""
        ...


def require_batches(at: tuple[int, ...], since: int | None) -> None:
    """Refuse a fault that would never fire.

    Raises:
        InvalidCallError: No batch at all, or a negative one.
    """
    if not (at or since is not None) or min((*at, since or 0)) < 0:
        raise InvalidCallError(f"A fault needs batches, counted from 0: at={at}, since={since}.")


class Armed:
    """A fault in one run: counts batches and firings."""

    def __init__(self, fault: Planned) -> None:
        self.fault = fault
        self.batches = 0
        """Batches begun."""
        self.fired = 0
        self.due = 0
        """How often it still must fire for the batches so far."""
        self.truth = fault.truth
        """What is known before, later with the operation that the fault found."""

    def begin_batch(self) -> None:
        """Count a batch, and note whether the fault is due."""
        if self.fault.since is not None and self.batches >= self.fault.since:
            self.due = max(self.due, 1)  # a place that comes once per window owes no firing per micro-batch
        elif self.batches in self.fault.at:
            self.due += 1
        self.batches += 1

    def is_due(self, *places: str) -> bool:
        """Say whether the fault is due at one of these places."""
        return self.due > 0 and self.fault.place in places

    def fire(self, *targets: Tensor | None) -> None:
        """Write the value into tensors, or wait if there are none.

        Writing through ``data`` keeps the tensors' version counters, as a flipped bit in memory does.
        """
        found = [target for target in targets if target is not None]
        for target in found:
            target.data.fill_(self.fault.value)
        if found:
            self.done()

    def done(self) -> None:
        """Count a firing."""
        self.fired += 1
        self.due -= 1
