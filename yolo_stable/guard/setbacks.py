"""Setbacks: rollbacks that say nothing about the learning rate, counted by progress and by the number that was ruined."""

from __future__ import annotations

from collections.abc import Iterable

from .damage import ElementPlace, StateDamage

AT_ONCE = 8
"""Optimizer steps within which it is no chance that the same number is ruined again: something keeps writing there."""
SPARE = 4
"""Snapshots between two setbacks: at most a quarter of the steps is lost."""


class Setbacks:
    """Remembers rollbacks at an unchanged learning rate: for ruined numbers, and for rejections without end.

    The next snapshot forgives a setback. What counts never goes away: setbacks without a snapshot in between, and the same number
    ruined again at once. Snapshots follow each other faster after a setback, so that there is one however often setbacks come.

    Args:
        every: Optimizer steps between two snapshots while all is well, >= 1.
        memory: Optimizer steps for which ruined numbers are remembered, and for which rejections belong together, >= 1.

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
        self._ruined: dict[ElementPlace, tuple[int, int]] = {}

    def before(self, damage: Iterable[StateDamage], step: int) -> int:
        """Return how many setbacks count against one more.

        Args:
            damage: What is ruined this time.
            step: Optimizer steps applied so far.
        """
        return max([self._stuck, *(self._times(found, step) for found in damage)])

    def knows(self, damage: Iterable[StateDamage], step: int) -> bool:
        """Return whether one of these numbers was ruined not long ago."""
        return any(step - self._ruined[d.place][0] <= self._memory for d in damage if d.place in self._ruined)

    def add(self, damage: Iterable[StateDamage], step: int) -> None:
        """Count a setback."""
        self._stuck += 1
        for found in damage:
            self._ruined[found.place] = step, self._times(found, step) + 1
        self._ruined = {place: seen for place, seen in self._ruined.items() if step - seen[0] <= self._memory}
        self.pace = max(1, min(self.pace, (step - self._last) // SPARE))
        self._last = step

    def led_astray(self, step: int) -> bool:
        """Note a rollback for rejections without end; return whether training led to them.

        It did if only a few steps were applied since the last such rollback: the batches were good for the restored state, and
        training has led out of it again.
        """
        steps = 0 if self._rejected is None else step - self._rejected
        self._rejected = step
        return 0 < steps <= self._memory

    def kept(self) -> None:
        """Forgive: a newer healthy state was kept."""
        self._stuck = 0
        self.pace = min(self.pace + 1, self._every)

    def forget(self) -> None:
        """Restart the count, as in another precision."""
        self._stuck = 0
        self._ruined = {place: (step, 0) for place, (step, _) in self._ruined.items()}

    def _times(self, found: StateDamage, step: int) -> int:
        """Return how often in a row the number was ruined at once, up to now."""
        last, times = self._ruined.get(found.place, (step, 0))
        return times if step - last <= AT_ONCE else 0
