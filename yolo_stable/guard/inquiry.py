"""Inquiry: is training worse on the batches of now than an older state is?

Loss and norm alone cannot tell a divergence from a block of hard batches after a block of easy ones: backgrounds, small pictures,
one source, one class, as with ``rect=True``, sorted lists and samplers. The model can. What is compared is one and the same
micro-batch under two states, so that every order of any data cancels out: where batches are hard, the older state is no better
at them.

Compared are the largest of several losses, not their sums. A detector that is hardly trained finds no objects in many batches,
and its loss is next to nothing there: better than that of any detector that finds some. In honest trainings from scratch with
batches of 2 the sum of eight losses was 5 times, that of sixteen 3.4 times as high as before the first step, but the largest
of eight at most 2 times, and the largest of sixteen 1.1 times.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum

from .witness import Measured

RECENT = 4
"""Of the batches that are compared, the last ones: by these training has to be worse still, or silent."""
LONGEST = 4
"""So many times ``batches`` are tried while the older state has no finite loss on them; then it is no better."""
SILENT = 1e-2
"""Below this share of the older state's loss, after it was far above it: the network has exploded and is dead now. A detector
that finds nothing in any batch has a loss of 0."""
GROWN = 0.7
"""A norm counts only while the loss is not below this share of what it was: norms grow as training warms up."""


class Answer(str, Enum):
    """What is known by now."""

    OPEN = "open"
    """More batches have to be compared."""
    HONEST = "honest"
    """The older state is no better: it is the data."""
    WORSE = "worse"
    """The older state is far better on the same data: training has diverged."""


class Inquiry:
    """Compares micro-batch by micro-batch; decides as soon as the older state turns out to be no better, or when it has enough.

    Args:
        loss_ratio: Largest loss now, divided by the largest under the older state, from which on training is worse, > 1.
        norm_ratio: The same for the gradient norms; None: they are not asked for.
        batches: Micro-batches that are enough, >= 1.

    Examples:
        >>> honest = Inquiry(loss_ratio=2.0, batches=2)
        >>> honest.add(now=Measured(4.0), then=Measured(4.1)).value
        'honest'
        >>> diverged = Inquiry(loss_ratio=2.0, batches=2)
        >>> diverged.add(now=Measured(40.0), then=Measured(4.0)).value
        'open'
        >>> diverged.add(now=Measured(50.0), then=Measured(5.0)).value
        'worse'
        >>> diverged.figures("the state of step 320")
        'of the last 2 batches the largest loss is 50 now and 5 under the state of step 320'
    """

    def __init__(self, loss_ratio: float, norm_ratio: float | None = None, *, batches: int) -> None:
        self.loss_ratio, self.norm_ratio, self.batches = loss_ratio, norm_ratio, batches
        self._now: list[Measured] = []
        self._then: list[Measured] = []
        self._tried = 0

    def add(self, now: Measured, then: Measured) -> Answer:
        """Take one micro-batch.

        Args:
            now: Under the state of now; what is not finite is as large as can be.
            then: Under the older state. When it is not finite, or it has found nothing, nothing is learned from this
                micro-batch: next to no loss is no merit then.
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
        """Say what was compared.

        Args:
            older: Which state that was, such as ``the state of step 320``.
        """
        by_loss = self._loss_worse()
        now, then = self._largest_loss() if by_loss else self._largest_norm()
        what = "loss" if by_loss else "gradient norm"
        return f"of the last {len(self._now)} batches the largest {what} is {now:.3g} now and {then:.3g} under {older}"


def _largest(numbers: Iterable[float]) -> float:
    return max(number if math.isfinite(number) else math.inf for number in numbers)
