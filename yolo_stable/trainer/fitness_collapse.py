"""Fitness collapse: validation finds almost nothing of what it once found, and the training loss agrees."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

IN_A_ROW = 2
"""Low validations in a row that raise a suspicion: one may be chance on a small validation set."""
LEAST = 0.05
"""A best fitness at or below this can fall by chance."""
RISE = 2.0
"""Times that the loss on training batches has to exceed that of the best state. Honest training was measured at 0.03 to 1.3, the
latter in the first steps of a warm-up. A best state that had learned too little to be twice as good loses little."""


@dataclass(slots=True)
class FitnessWatch:
    """Remembers the best fitness of this process, and how long it has been far below it.

    It only raises a suspicion. The fitness of a small validation set jumps up and down, and one that looks at other pictures than
    those that are trained on just now, as in a curriculum or with sorted data, is forgotten honestly; :func:`is_worse` tells
    these from a collapse.
    """

    best: float = 0.0
    low: int = 0
    needed: int = IN_A_ROW
    """Low validations in a row until the next suspicion; each wrong one doubles it."""
    steps: int = -1
    """Optimizer steps at the newest validation that counted."""

    @property
    def looks_closer(self) -> bool:
        """Whether another low validation would be a suspicion."""
        return self.low == self.needed - 1

    def judge(self, fitness: float, share: float, steps: int) -> str:
        """Judge the fitness of a validation.

        Args:
            fitness: Higher is better, finite.
            share: Of the best fitness, below which a validation is low, in (0, 1).
            steps: Optimizer steps taken so far. Without a new one it is the same state, which was judged already.

        Returns:
            ``"best"``, ``"suspicious"``, or nothing.

        Examples:
            >>> watch = FitnessWatch()
            >>> [watch.judge(fitness, 0.1, step) for step, fitness in enumerate((0.3, 0.4, 0.01, 0.02, 0.5))]
            ['best', 'best', '', 'suspicious', 'best']
        """
        if steps == self.steps:
            return ""
        self.steps = steps
        if fitness > self.best:
            self.best, self.low, self.needed = fitness, 0, IN_A_ROW
            return "best"
        self.low = self.low + 1 if self.best > LEAST and fitness < share * self.best else 0
        if self.low < self.needed:
            return ""
        self.low = 0
        return "suspicious"

    def acquit(self) -> None:
        """Double the evidence for the next suspicion: this one was wrong."""
        self.needed *= 2


def rise(now: Sequence[float], best: Sequence[float]) -> float | None:
    """Return how much larger the loss is than that of the best state, on batches that the state of now was trained on.

    Args:
        now: Loss of the state of now on each of some batches.
        best: Loss of the best state on the same, as if it found all objects of them; infinite where it finds none.

    Returns:
        The ratio of the sums or the median of the ratios, whichever is smaller: a state that has learned to find objects pays
        for it on backgrounds, on which one that finds nothing has hardly any loss. None when there is nothing to compare: a
        batch on which the best state has no finite loss above 0 says nothing.

    Examples:
        >>> rise([4.0, 6.0, 3.0], [2.0, 2.0, 2.0]), rise([math.nan], [2.0]), rise([1.0], [math.inf])
        (2.0, inf, None)
    """
    pairs = [(a if math.isfinite(a) else math.inf, b) for a, b in zip(now, best, strict=True) if 0 < b < math.inf]
    if not pairs:
        return None
    return min(statistics.median(a / b for a, b in pairs), sum(a for a, _ in pairs) / sum(b for _, b in pairs))


def is_worse(times: float | None) -> bool:
    """Return whether training has lost what the best state knew, by the :func:`rise` of its loss.

    The state of an honest training has been trained on these very batches since, and does better on them, or hardly worse. One
    that has collapsed does worse on everything.

    Examples:
        >>> is_worse(2.0), is_worse(0.9), is_worse(None)
        (True, False, False)
    """
    return times is not None and times >= RISE
