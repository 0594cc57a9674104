"""Ladder: what is done when rejecting a batch is not enough: roll back, lower the precision, halt. Pure rules, and the brake."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

import torch

from ..errors import InvalidCallError
from .config import GuardConfig
from .damage import Damage

REFILL = 10
"""The brake's budget is full again after this many times ``ramp_steps`` applied without a rollback that brakes."""

LEAST = 2.0**-20
"""No number of rollbacks brakes further than this: at 0 training would stand still for ever."""


class Rung(str, Enum):
    """What is done; each is harder than the one before."""

    REPAIR = "repair"
    """The averaged model was put back to the newest snapshot; training itself was healthy."""
    ROLL_BACK = "roll_back"
    """The whole state was put back to a snapshot; where training had gone astray, with half the learning rate from there on."""
    LOWER_PRECISION = "lower_precision"
    """As a rollback, and computed in the next safer precision from here on."""
    HALT = "halt"
    """Nothing is left to try."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Climb:
    """One climb on the ladder, with its reason."""

    rung: Rung
    reason: str
    culprits: tuple[str, ...] = ()
    """Tensors that were not finite or absurd, the first few."""
    step: int = 0
    """Optimizer steps applied when it happened."""
    to_step: int | None = None
    """Steps applied in the state that was put back."""
    lr_factor: float = 1.0
    """What the learning rate is multiplied by from here on."""
    precision: str = ""
    """What is computed in from here on, when it was lowered."""
    lost: int = 0
    """Optimizer steps that this climb undid; less than ``step - to_step`` when earlier ones had undone some of these."""
    damage: tuple[Damage, ...] = ()
    """What was wrong with the state, looked at closely before it was put back."""
    diverged: bool = False
    """Whether training itself went astray; else batches were rejected in a row, or numbers were ruined."""


def next_rung(rollbacks: int, config: GuardConfig, *, has_snapshot: bool, can_lower: bool) -> Rung:
    """Decide how to go on when a batch's rejection was not enough.

    Args:
        rollbacks: Those that count: for a training that goes astray, since the brake's budget was full; for anything else, as
            :meth:`~yolo_stable.guard.setbacks.Setbacks.before` has it.
        config: Holds the budget, of which each of the two has as much.
        has_snapshot: Whether there is a state to go back to.
        can_lower: Whether there is a safer precision.

    Examples:
        >>> next_rung(0, GuardConfig(), has_snapshot=True, can_lower=False).value
        'roll_back'
        >>> next_rung(8, GuardConfig(max_rollbacks=8), has_snapshot=True, can_lower=False).value
        'halt'
    """
    if not has_snapshot:
        return Rung.HALT
    if rollbacks < config.max_rollbacks:
        return Rung.ROLL_BACK
    return Rung.LOWER_PRECISION if can_lower else Rung.HALT


def most_micro_batches(config: GuardConfig, precisions: int, accumulate: int = 1) -> int:
    """Return after how many micro-batches at most a fault that never goes away halts the run.

    Never: every batch is bad, or every window's gradients are, or the state is ruined in every step, or the loss is out of
    line from the first step after each rollback on. None of these lets a healthy state be kept, so that each climb counts.
    What spares some windows does not halt, but for more bad windows than ``max_share``, and numbers ruined again at once.

    Args:
        config: Holds the budgets.
        precisions: How many precisions there are to try, the first one included.
        accumulate: Micro-batches in a window.
    """
    # The halt itself, and the one time that a fault is taken for another, with a budget of its own.
    climbs = config.max_rollbacks * precisions + 2
    # To a climb: rejections past the limit, or steps until the audit, or high losses past the patience.
    windows = max(config.max_consecutive + 1, config.snapshot_every or 1, config.patience)
    return climbs * windows * accumulate


@dataclass(slots=True)
class Brake:
    """The factor that rollbacks put on the learning rate when training had gone astray.

    Such a rollback halves it, then it ramps back over ``ramp_steps`` applied steps. When training goes astray again on the way
    back, the learning rate itself is too high: it no longer ramps back beyond half of where it failed.
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
        """Halve: training itself went astray."""
        if self.rollbacks and 0 < self.calm < 2 * self.ramp_steps:
            self.lower_ceiling()
        self.factor = self.start = max(min(self.factor / 2, self.ceiling), LEAST)
        self.calm = 0
        self.rollbacks += 1

    def lower_ceiling(self) -> None:
        """Never ramp back beyond half of the factor of now."""
        self.ceiling = max(self.factor / 2, LEAST)

    def applied(self) -> None:
        """Ramp back by one step; after a long calm the budget is full again."""
        if self.calm >= REFILL * self.ramp_steps and self.rollbacks == 0:
            return
        self.calm += 1
        way = min(self.calm / self.ramp_steps, 1.0)
        self.factor = self.ceiling if way == 1.0 else self.start + (self.ceiling - self.start) * way
        if self.calm >= REFILL * self.ramp_steps:
            self.rollbacks = 0

    @contextmanager
    def on(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Multiply the learning rates for one step; the schedule sees its own numbers before and after."""
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
        """Go on from what :meth:`to_dict` returned; the length of the ramp stays as it is.

        Raises:
            InvalidCallError: It is something else; nothing has been changed.
        """
        valid = self.to_dict()
        counts = ("ramp_steps", "calm", "rollbacks")
        if (
            not isinstance(values, Mapping)
            or set(values) != set(valid)
            or any(type(values[name]) is not int or values[name] < 0 for name in counts)
            or any(
                type(values[name]) not in (int, float) or not 0.0 < values[name] <= 1.0
                for name in set(valid).difference(counts)
            )
        ):
            raise InvalidCallError(
                f"This is not the state of a StepGuard: brake={values!r}. It must have factors above 0 and up to 1, and whole"
                f" numbers of 0 or more, named {', '.join(valid)}."
            )
        for name in set(valid) - {"ramp_steps"}:
            setattr(self, name, values[name])
