"""Setbacks: rollbacks that say nothing about the learning rate; how many without a step forward, which numbers ruined again."""

from __future__ import annotations

from collections.abc import Iterable

from .damage import Damage, Place

AT_ONCE = 8
"""Optimizer steps within which a number that is ruined again is no chance: something keeps writing there."""
SPARE = 4
"""A snapshot is taken so many times between two setbacks, so that a quarter of the steps is lost at most."""


class Setbacks:
    """Remembers what was put back at an unchanged learning rate: numbers that were ruined, and rejections without end.

    A setback that comes seldom is forgiven for ever: the next state that is kept is a step forward, and all is forgotten.
    Counted is what never goes away: setbacks without such a state in between, and the same number ruined again at once. So
    that there is such a state however often they come, snapshots follow each other faster after a setback.

    Args:
        every: Optimizer steps between two snapshots while all is well, >= 1.
        memory: Optimizer steps for which a ruined place is remembered, and for which rejections belong together, >= 1.

    Examples:
        >>> setbacks = Setbacks(every=16, memory=64)
        >>> for step in (40, 40, 41):
        ...     setbacks.add([], step)
        >>> setbacks.before([], 41), setbacks.pace
        (3, 1)
        >>> setbacks.kept()
        >>> setbacks.before([], 42), setbacks.pace
        (0, 2)
    """

    def __init__(self, every: int, memory: int) -> None:
        self._every, self._memory = every, memory
        self.pace = every
        """Optimizer steps from a snapshot to the next one."""
        self._stuck = 0
        self._last = 0
        self._rejected: int | None = None
        self._ruined: dict[Place, tuple[int, int]] = {}

    def before(self, damage: Iterable[Damage], step: int) -> int:
        """Return how many setbacks count against one more.

        Args:
            damage: What is ruined this time.
            step: Optimizer steps applied so far.
        """
        return max([self._stuck, *(self._times(found, step) for found in damage)])

    def knows(self, damage: Iterable[Damage], step: int) -> bool:
        """Return whether one of these places was ruined not long ago."""
        return any(step - self._ruined[d.place][0] <= self._memory for d in damage if d.place in self._ruined)

    def add(self, damage: Iterable[Damage], step: int) -> None:
        """Count a setback."""
        self._stuck += 1
        for found in damage:
            self._ruined[found.place] = step, self._times(found, step) + 1
        self._ruined = {place: seen for place, seen in self._ruined.items() if step - seen[0] <= self._memory}
        self.pace = max(1, min(self.pace, (step - self._last) // SPARE))
        self._last = step

    def led_astray(self, step: int) -> bool:
        """Note that rejections without end make training go back; return whether it was training that led to them.

        It was when steps were applied since this happened before, and only a few: the batches were good with the state that had
        been put back, and training has led out of it again.
        """
        steps = 0 if self._rejected is None else step - self._rejected
        self._rejected = step
        return 0 < steps <= self._memory

    def kept(self) -> None:
        """Forgive: a newer state was found healthy and kept."""
        self._stuck = 0
        self.pace = min(self.pace + 1, self._every)

    def forget(self) -> None:
        """Begin to count anew, as in another precision."""
        self._stuck = 0
        self._ruined = {place: (step, 0) for place, (step, _) in self._ruined.items()}

    def _times(self, found: Damage, step: int) -> int:
        """Return how often in a row the place was ruined at once, up to now."""
        last, times = self._ruined.get(found.place, (step, 0))
        return times if step - last <= AT_ONCE else 0
