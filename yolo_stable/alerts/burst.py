"""Rejection burst: tells many bad batches from one now and then, once until it is over."""

from __future__ import annotations

from collections import deque

from ..guard import Decision, GuardVerdict

NEWEST = 100
"""Windows whose share of lost ones is looked at."""
FEWEST = 3
"""Rejections in a row that are no burst yet in a run that escalates sooner."""
APPLIED = frozenset({GuardVerdict.APPLY, GuardVerdict.CLIP})


class RejectionBurst:
    """Follows the decisions of a run.

    A burst is half of what the guard endures: ``max_consecutive / 2`` rejections since the last optimizer step, at least 4, or
    ``max_share / 2`` of the newest 100 windows lost. It is over once as many windows as that were applied without a rejection.

    Args:
        max_consecutive: The guard's limit of rejections in a row.
        max_share: Its limit of lost windows; None: that is not judged.

    Examples:
        >>> bad, good = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH), Decision(verdict=GuardVerdict.APPLY)
        >>> burst = RejectionBurst(max_consecutive=10, max_share=None)
        >>> [burst.add(one) for one in [bad] * 6]
        ['', '', '', '', '5 rejections in a row', '']
    """

    def __init__(self, max_consecutive: int, max_share: float | None) -> None:
        self._in_a_row = max(FEWEST + 1, max_consecutive // 2)
        self._share = max_share
        self._windows: deque[bool] = deque(maxlen=NEWEST)
        """Of the newest windows, whether each was lost."""
        self._rejected = self._calm = 0
        self._spoilt = self._told = False

    def add(self, decision: Decision) -> str:
        """Take a decision, and return what begins with it in words; empty for nothing new."""
        verdict = decision.verdict
        if verdict is GuardVerdict.BACKWARD:
            return ""
        if verdict in APPLIED:
            self._calm = 0 if self._spoilt else self._calm + 1
            self._rejected, self._spoilt = 0, False
            self._windows.append(False)
            self._told = self._told and self._calm < self._in_a_row
            return ""
        if decision.rejected:
            self._rejected += 1
            self._spoilt, self._calm = True, 0
        if verdict is GuardVerdict.REJECT_WINDOW or (verdict is GuardVerdict.EMPTY and self._spoilt):
            self._windows.append(True)
            self._spoilt = False
        words = "" if self._told else self._words()
        self._told = self._told or bool(words)
        return words

    def _words(self) -> str:
        if self._rejected >= self._in_a_row:
            return f"{self._rejected} rejections in a row"
        lost, newest = sum(self._windows), len(self._windows)
        if self._share is not None and newest == NEWEST and lost > newest * self._share / 2:
            return f"{lost} of the newest {newest} windows lost"
        return ""
