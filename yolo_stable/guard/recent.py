"""Recent windows: the share that was lost tells bad batches now and then from data that cannot be trained."""

from __future__ import annotations

from .decision import Decision, Verdict

STRETCH = 500
"""Windows in a block; the newest whole block and the one that is under way are looked at."""


class Recent:
    """Counts the windows of the last 500 to 1000 that were not applied, because they or all their micro-batches were bad.

    A window that was applied without some of its micro-batches has trained. One that nobody put anything into is none. With
    several ranks all count the same: they reject windows together.
    """

    def __init__(self) -> None:
        self._before = self._now = (0, 0)  # windows, lost
        self._spoilt = False

    @property
    def windows(self) -> int:
        """Windows that are looked at, below twice `STRETCH`."""
        return self._before[0] + self._now[0]

    @property
    def lost(self) -> int:
        """Of these, windows that were not applied."""
        return self._before[1] + self._now[1]

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        verdict = decision.verdict
        if verdict is Verdict.REJECT_MICRO_BATCH:
            self._spoilt = True
        if verdict in {Verdict.REJECT_MICRO_BATCH, Verdict.BACKWARD}:
            return
        spoilt, self._spoilt = self._spoilt, False
        if verdict is Verdict.EMPTY and not spoilt:
            return
        windows, lost = self._now
        self._now = windows + 1, lost + (verdict in {Verdict.REJECT_WINDOW, Verdict.EMPTY})
        if self._now[0] == STRETCH:
            self._before, self._now = self._now, (0, 0)
