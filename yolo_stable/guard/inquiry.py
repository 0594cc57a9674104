"""Inquiry: compares training with an older state on the same micro-batches.

Loss and norm alone cannot tell a divergence from a block of hard batches after a block of easy ones: backgrounds, small pictures,
one source, one class, as with ``rect=True``, sorted lists and samplers. The model can. The inquiry compares the same micro-batch
under two states, which cancels every order of any data: on hard batches the older state is no better.

It compares the largest of several losses, not their sums. A hardly trained detector finds no objects in many batches, and its
loss there is next to nothing: better than that of any detector that finds some. In honest trainings from scratch with batches
of 2 the sum of eight losses was 5 times, that of sixteen 3.4 times as high as before the first step, but the largest of eight
at most 2 times, and the largest of sixteen 1.1 times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum

from .witness import BatchMeasurement

RECENT = 4
"""The last batches compared: training has to be still worse on these, or silent."""
LONGEST = 4
"""Tries, as a multiple of ``batches``, while the older state has no finite loss; after them it is no better."""
SILENT = 1e-2
"""A loss below this share of the older state's, after it was far above it: the network has exploded and is dead. A detector that
finds nothing in any batch has a loss of 0."""
GROWN = 0.7
"""A norm counts only while the loss is above this share of what it was: norms grow as training warms up."""


class Answer(str, Enum):
    """What the inquiry knows by now."""

    OPEN = "open"
    """It needs more batches."""
    HONEST = "honest"
    """The older state is no better: it is the data."""
    WORSE = "worse"
    """The older state is far better on the same data: training has diverged."""


class Inquiry:
    """Compares micro-batch by micro-batch until the older state turns out to be no better, or until there are enough.

    Args:
        loss_ratio: Largest loss now over the largest under the older state from which training is worse, > 1.
        norm_ratio: The same for gradient norms; None: not compared.
        batches: Enough micro-batches, >= 1.

    Examples:
        >>> honest = Inquiry(loss_ratio=2.0, batches=2)
        >>> honest.add(now=BatchMeasurement(4.0), then=BatchMeasurement(4.1)).value
        'honest'
        >>> diverged = Inquiry(loss_ratio=2.0, batches=2)
        >>> diverged.add(now=BatchMeasurement(40.0), then=BatchMeasurement(4.0)).value
        'open'
        >>> diverged.add(now=BatchMeasurement(50.0), then=BatchMeasurement(5.0)).value
        'worse'
        >>> diverged.figures("the state of step 320")
        'of the last 2 batches the largest loss is 50 now and 5 under the state of step 320'
    """

    def __init__(self, loss_ratio: float, norm_ratio: float | None = None, *, batches: int) -> None:
        self.loss_ratio, self.norm_ratio, self.batches = loss_ratio, norm_ratio, batches
        self._now: list[BatchMeasurement] = []
        self._then: list[BatchMeasurement] = []
        self._tried = 0

    def add(self, now: BatchMeasurement, then: BatchMeasurement) -> Answer:
        """Take one micro-batch.

        Args:
            now: Under the current state; a number that is not finite counts as infinite.
            then: Under the older state. If that is not finite, or found nothing, this micro-batch says nothing: next to no loss
                is no merit then.
        """
        self._tried += 1
        then = then.whole
        if not math.isfinite(then.loss) or (self.norm_ratio is not None and not math.isfinite(then.norm)):
            return Answer.OPEN if self._tried < LONGEST * self.batches else Answer.HONEST
        self._now.append(now)
        self._then.append(then)
        if not (self._loss_above(1.0) or self._norm_above(1.0)):
            return Answer.HONEST
        if len(self._now) < self.batches:
            return Answer.OPEN
        return Answer.WORSE if self._loss_worse() or self._norm_worse() else Answer.HONEST

    def _loss_worse(self) -> bool:
        now, then = self._largest_loss(RECENT)
        return self._loss_above(self.loss_ratio) and (now > self.loss_ratio * then or now < SILENT * then)

    def _loss_above(self, ratio: float) -> bool:
        now, then = self._largest_loss()
        return now > ratio * then

    def _norm_worse(self) -> bool:
        return self.norm_ratio is not None and self._norm_above(self.norm_ratio) and self._loss_above(GROWN)

    def _norm_above(self, ratio: float) -> bool:
        now, then = self._largest_norm()
        return self.norm_ratio is not None and now > ratio * then

    def _largest_loss(self, last: int = 0) -> tuple[float, float]:
        return _largest(m.loss for m in self._now[-last:]), _largest(m.loss for m in self._then[-last:])

    def _largest_norm(self) -> tuple[float, float]:
        return _largest(m.norm for m in self._now), _largest(m.norm for m in self._then)

    def figures(self, older: str) -> str:
        """Return the comparison in words; ``older`` names the older state, such as ``the state of step 320``."""
        by_loss = self._loss_worse()
        now, then = self._largest_loss() if by_loss else self._largest_norm()
        what = "loss" if by_loss else "gradient norm"
        return f"of the last {len(self._now)} batches the largest {what} is {now:.3g} now and {then:.3g} under {older}"


def _largest(numbers: Iterable[float]) -> float:
    return max(number if math.isfinite(number) else math.inf for number in numbers)
