"""Recent windows: the share that was lost tells bad batches now and then from data that cannot be trained."""

from __future__ import annotations

from .decision import Decision, GuardVerdict

STRETCH = 500
"""Windows in a block; the newest whole block and the current one count."""


class RecentWindows:
    """Counts which of the last 500 to 1000 windows were lost, because they or all their micro-batches were bad.

    A window that was applied without some of its micro-batches has trained. A window without any micro-batch does not count. All
    ranks count the same: they reject windows together.
    """

    def __init__(self) -> None:
        self._before = self._now = (0, 0)  # windows, lost
        self._spoilt = False

    @property
    def windows(self) -> int:
        """Windows counted, below twice `STRETCH`."""
        return self._before[0] + self._now[0]

    @property
    def lost(self) -> int:
        """Of these, windows lost."""
        return self._before[1] + self._now[1]

    def add(self, decision: Decision) -> None:
        """Count one decision."""
        verdict = decision.verdict
        if verdict is GuardVerdict.REJECT_MICRO_BATCH:
            self._spoilt = True
        if verdict in {GuardVerdict.REJECT_MICRO_BATCH, GuardVerdict.BACKWARD}:
            return
        spoilt, self._spoilt = self._spoilt, False
        if verdict is GuardVerdict.EMPTY and not spoilt:
            return
        windows, lost = self._now
        self._now = windows + 1, lost + (verdict in {GuardVerdict.REJECT_WINDOW, GuardVerdict.EMPTY})
        if self._now[0] == STRETCH:
            self._before, self._now = self._now, (0, 0)
