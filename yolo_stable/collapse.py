"""A run that collapses: the validation finds next to nothing any more of what it once found."""

from __future__ import annotations

from dataclasses import dataclass

IN_A_ROW = 2
"""Validations in a row that make a collapse: one may be an accident of a small validation set."""
LEAST = 0.05
"""A best fitness that is not above this can fall for no reason."""


@dataclass(slots=True)
class FitnessWatch:
    """Remembers the best fitness of this process, and how long it has been far below it."""

    best: float = 0.0
    low: int = 0

    def judge(self, fitness: float, share: float) -> str:
        """Take the fitness of a validation.

        Args:
            fitness: Higher is better, finite.
            share: Of the best fitness, below which a validation counts as collapsed, in (0, 1).

        Returns:
            ``"best"``, ``"collapsed"``, or nothing.

        Examples:
            >>> watch = FitnessWatch()
            >>> [watch.judge(fitness, 0.1) for fitness in (0.3, 0.4, 0.01, 0.02, 0.5)]
            ['best', 'best', '', 'collapsed', 'best']
        """
        if fitness > self.best:
            self.best, self.low = fitness, 0
            return "best"
        self.low = self.low + 1 if self.best > LEAST and fitness < share * self.best else 0
        if self.low < IN_A_ROW:
            return ""
        self.low = 0
        return "collapsed"
