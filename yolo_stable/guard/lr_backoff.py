"""Learning-rate backoff: the factor that rollbacks put on the learning rate after training diverged."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import InvalidCallError
from .setting_checks import is_count, is_state

REFILL = 10
"""The budget is full again after this many times ``ramp_steps`` applied steps without a divergence."""

LEAST = 2.0**-20
"""Smallest factor, whatever the number of rollbacks: at 0 training would stand still for ever."""


@dataclass(slots=True)
class LearningRateBackoff:
    """A factor that each rollback after a divergence halves, and that then ramps back over ``ramp_steps`` applied steps.

    When training diverges again on the way back, the learning rate itself is too high: from then on it ramps back to half of
    where it failed.
    """

    ramp_steps: int
    factor: float = 1.0
    start: float = 1.0
    ceiling: float = 1.0
    calm: int = 0
    """Steps applied since the last such rollback."""
    rollbacks: int = 0
    """Such rollbacks since the budget was full."""

    def rolled_back(self) -> None:
        """Halve the factor: training diverged."""
        if self.rollbacks and 0 < self.calm < 2 * self.ramp_steps:
            self.lower_ceiling()
        self.factor = self.start = max(min(self.factor / 2, self.ceiling), LEAST)
        self.calm = 0
        self.rollbacks += 1

    def lower_ceiling(self) -> None:
        """Never ramp back beyond half of the current factor."""
        self.ceiling = max(self.factor / 2, LEAST)

    def applied(self) -> None:
        """Ramp back by one step; refill the budget after a long calm."""
        if self.calm >= REFILL * self.ramp_steps and self.rollbacks == 0:
            return
        self.calm += 1
        way = min(self.calm / self.ramp_steps, 1.0)
        self.factor = self.ceiling if way == 1.0 else self.start + (self.ceiling - self.start) * way
        if self.calm >= REFILL * self.ramp_steps:
            self.rollbacks = 0

    @contextmanager
    def on(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Multiply the learning rates for one step; schedules see their own numbers before and after."""
        if self.factor == 1.0:
            yield
            return
        before = [(group, group["lr"]) for group in optimizer.param_groups if "lr" in group]
        try:
            for group, lr in before:
                group["lr"] = lr * self.factor
            yield
        finally:
            for group, lr in before:
                group["lr"] = lr

    def to_dict(self) -> dict[str, Any]:
        """Return all counters as plain numbers."""
        return asdict(self)

    def load(self, values: Any) -> None:
        """Continue from :meth:`to_dict`; the length of the ramp stays as it is.

        Raises:
            InvalidCallError: ``values`` is something else; nothing has been changed.
        """
        valid = self.to_dict()
        counts = dict.fromkeys(("ramp_steps", "calm", "rollbacks"), is_count)
        if not is_state(values, {**dict.fromkeys(valid, _is_factor), **counts}):
            raise InvalidCallError(
                f"This is not the state of a StepGuard: brake={values!r}. It must have factors above 0 and up to 1, and whole"
                f" numbers of 0 or more, named {', '.join(valid)}."
            )
        for name in set(valid) - {"ramp_steps"}:
            setattr(self, name, values[name])


def _is_factor(value: Any) -> bool:
    return type(value) in (int, float) and 0.0 < value <= 1.0
