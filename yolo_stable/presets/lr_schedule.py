"""Learning-rate schedule: Ultralytics' warm-up and decay as plain numbers, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidCallError

_ADAM_LR0 = 0.001  # default.yaml on lr0: "SGD=1e-2, Adam/AdamW=1e-3"; the default itself is meant for SGD
# RMSprop divides by the size of the gradient as Adam does, so a rate means the same to it.
_ADAM_LIKE = frozenset({"adam", "adamax", "adamw", "nadam", "radam", "rmsprop"})
_WARMUP_LIMIT = 3  # warm-up may take one third of the steps
_RATE_LIMIT = 10  # the summed rate may be one tenth of the default's


@dataclass(frozen=True)
class Schedule:
    """The learning rate of the weights (not the biases) at every step of a run, as Ultralytics sets it.

    A step is one batch. Where Ultralytics accumulates gradients, the optimizer takes fewer steps, at the same rates.

    Raises:
        InvalidCallError: ``epochs`` or ``nb`` is under 1.
    """

    lr0: float
    lrf: float
    """The final rate as a fraction of ``lr0``."""
    warmup_epochs: float
    """The last epoch is never part of the warm-up."""
    epochs: int
    nb: int
    """Batches per epoch."""
    cos_lr: bool = False
    """Decay by a cosine instead of a straight line."""

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.nb < 1:
            raise InvalidCallError(
                f"A schedule needs at least 1 epoch of 1 batch, but got epochs={self.epochs} and nb={self.nb}."
            )

    @property
    def total_steps(self) -> int:
        """The number of batches in the run."""
        return self.epochs * self.nb

    @property
    def warmup_steps(self) -> int:
        """The number of batches until the full rate is reached (Ultralytics' ``_get_warmup_iterations``)."""
        warmup_epochs = min(self.warmup_epochs, self.epochs - 1)
        return round(warmup_epochs * self.nb) if warmup_epochs > 0 else 0

    @property
    def warmup_share(self) -> float:
        """The share of all steps that the warm-up takes, from 0 to 1."""
        return self.warmup_steps / self.total_steps

    def factor(self, epoch: int) -> float:
        """Return the decay in an epoch: 1 in epoch 0, falling towards ``lrf``."""
        if self.cos_lr:
            return max((1 - math.cos(epoch * math.pi / self.epochs)) / 2, 0) * (self.lrf - 1) + 1
        return max(1 - epoch / self.epochs, 0) * (1.0 - self.lrf) + self.lrf

    def rate(self, step: int) -> float:
        """Return the learning rate that a batch is trained with."""
        full = self.lr0 * self.factor(step // self.nb)
        return full * step / self.warmup_steps if step < self.warmup_steps else full

    @property
    def summed_lr(self) -> float:
        """The sum of the learning rates over all steps: how far the weights can travel.

        Examples:
            >>> Schedule(lr0=0.5, lrf=1.0, warmup_epochs=0, epochs=2, nb=4).summed_lr
            4.0
        """
        total = 0.0
        for epoch in range(self.epochs):  # by epochs: the rate is constant or linear within each
            first, end = epoch * self.nb, (epoch + 1) * self.nb
            ramp_end = max(first, min(end, self.warmup_steps))
            ramp = (first + ramp_end - 1) * (ramp_end - first) / 2 / self.warmup_steps if ramp_end > first else 0.0
            total += self.lr0 * self.factor(epoch) * (ramp + end - ramp_end)
        return total


def schedule_warnings(settings: Mapping[str, Any], nb: int, defaults: Mapping[str, Any]) -> list[str]:
    """Warn of a run that mostly warms up, or that hardly learns; each line has the figures and what to do.

    The summed rate is compared with Ultralytics' defaults over the same epochs and batches: ``lr0`` 0.01, and 0.001 for Adam and
    its kin, as Ultralytics' ``default.yaml`` comments. With ``optimizer=auto``, which ignores ``lr0``, there is no rate
    to compare. A run that ``time`` limits has no known number of epochs, and no warnings.

    Args:
        settings: Of the run; ``defaults`` fill the gaps.
        nb: Batches per epoch, 1 or more.
        defaults: As from ``default_hyp()``.

    Raises:
        InvalidCallError: ``epochs`` or ``nb`` is under 1.
    """
    run = {**defaults, **settings}
    if run.get("time"):
        return []
    schedule = _schedule(run, nb, float(run["lr0"]))
    lines = []
    if _WARMUP_LIMIT * schedule.warmup_steps > schedule.total_steps:
        lines.append(_warmup_line(schedule))
    optimizer = str(run["optimizer"])
    if optimizer.lower() == "auto":
        return lines
    usual_lr0 = _ADAM_LR0 if optimizer.lower() in _ADAM_LIKE else float(defaults["lr0"])
    usual = _schedule({**defaults, "epochs": run["epochs"]}, nb, usual_lr0).summed_lr
    if schedule.summed_lr * _RATE_LIMIT < usual and not math.isclose(schedule.summed_lr * _RATE_LIMIT, usual):
        lines.append(
            f"The summed learning rate is {schedule.summed_lr:.3g} (lr0={schedule.lr0:g}, epochs={schedule.epochs}), "
            f"{schedule.summed_lr / usual:.1%} of the {usual:.3g} of Ultralytics' defaults (lr0={usual_lr0:g}): enough to "
            f"fine-tune, but too little to train from scratch. For that, train longer, or set lr0={usual_lr0:g}."
        )
    return lines


def _schedule(values: Mapping[str, Any], nb: int, lr0: float) -> Schedule:
    return Schedule(
        lr0=lr0,
        lrf=float(values["lrf"]),
        warmup_epochs=float(values["warmup_epochs"]),
        epochs=int(values["epochs"]),
        nb=nb,
        cos_lr=bool(values["cos_lr"]),
    )


def _warmup_line(schedule: Schedule) -> str:
    """Name the longest warm-up and the shortest run within the limit."""
    allowed = math.floor(schedule.total_steps // _WARMUP_LIMIT / schedule.nb * 100) / 100
    enough = math.ceil(_WARMUP_LIMIT * round(schedule.warmup_epochs * schedule.nb) / schedule.nb)
    return (
        f"The warm-up takes {schedule.warmup_steps} of {schedule.total_steps} steps ({schedule.warmup_share:.0%}), over a "
        f"third (warmup_epochs={schedule.warmup_epochs:g}, epochs={schedule.epochs}): "
        f"set epochs={enough} or more, or warmup_epochs={allowed:g} or less."
    )
