"""Log histogram: quantiles and maximum of many positive numbers in bounded memory."""

from __future__ import annotations

import math
from collections import Counter

PER_UNIT = 100
"""Classes for each factor of e: a quantile is right to half a percent."""


class LogHistogram:
    """Counts positive numbers by their logarithm.

    Examples:
        >>> norms = LogHistogram()
        >>> for value in range(1, 1001):
        ...     norms.add(float(value))
        >>> norms.most, abs(norms.quantile(0.5) / 500 - 1) < 0.01, LogHistogram().quantile(0.5)
        (1000.0, True, None)
    """

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.most: float | None = None
        """The largest number."""

    def add(self, value: float) -> None:
        """Count a number; ignore one that is not finite; count zero as the smallest number."""
        if not math.isfinite(value) or value < 0:
            return
        self._classes[round(math.log(max(value, 1e-300)) * PER_UNIT)] += 1
        if self.most is None or value > self.most:
            self.most = value

    def quantile(self, share: float) -> float | None:
        """Return the number that ``share`` of all numbers do not exceed; None without numbers."""
        left = share * self._classes.total()
        for key in sorted(self._classes):
            left -= self._classes[key]
            if left <= 0:
                return math.exp(key / PER_UNIT)
        return None
