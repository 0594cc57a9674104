"""A fault in one run: which batch the run is at, how often the fault has fired, and what is known to be true of it."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from torch import Tensor

from ..errors import InvalidCallError

NAN, INF = math.nan, math.inf


class Truth(NamedTuple):
    """What an autopsy should find; the first three say where, and an empty name is one that the fault does not fix."""

    phase: str
    """``data``, ``forward``, ``loss``, ``backward``, ``step`` or ``state``."""
    module: str
    """As in ``named_modules``."""
    op: str
    """As in ``aten.div.Tensor``; of a backward fault the operation of the backward pass."""
    forward_op: str = ""
    """Of a backward fault: the operation whose gradient broke."""
    cause: str = ""
    """Where only one can be right: ``data``, ``weights``, ``precision``, ``hardware transient``, ``hardware persistent``."""


class Planned(Protocol):
    """What all faults are: data, with a place and a time."""

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
        """The batch from which on it fires, from 0."""
        ...

    @property
    def truth(self) -> Truth:
        """What is known of it before it has fired."""
        ...


def require_batches(at: tuple[int, ...], since: int | None) -> None:
    """Refuse a fault that would never fire.

    Raises:
        InvalidCallError: No batch at all, or a negative one.
    """
    if not (at or since is not None) or min((*at, since or 0)) < 0:
        raise InvalidCallError(f"A fault needs batches, counted from 0: at={at}, since={since}.")


class Armed:
    """A fault in one run: which batch the run is at, and how often the fault has fired."""

    def __init__(self, fault: Planned) -> None:
        self.fault = fault
        self.batches = 0
        """Batches begun."""
        self.fired = 0
        self.due = 0
        """How often it still has to fire for the batches begun so far."""
        self.truth = fault.truth
        """What is known before, or what a fault that finds its own operation has found."""

    def begin_batch(self) -> None:
        """Count a batch, and know whether it is one of the fault's."""
        if self.fault.since is not None and self.batches >= self.fault.since:
            self.due = max(self.due, 1)  # a place that comes once in a window is not owed one for each micro-batch
        elif self.batches in self.fault.at:
            self.due += 1
        self.batches += 1

    def is_due(self, *places: str) -> bool:
        """Tell whether the fault belongs to one of these places and has to fire."""
        return self.due > 0 and self.fault.place in places

    def fire(self, *targets: Tensor | None) -> None:
        """Write the value into tensors, or wait when there are none.

        Written through ``data``, which leaves the tensors' version counters as they are: a memory that flips tells nobody.
        """
        found = [target for target in targets if target is not None]
        for target in found:
            target.data.fill_(self.fault.value)
        if found:
            self.done()

    def done(self) -> None:
        """Count that it has fired."""
        self.fired += 1
        self.due -= 1
