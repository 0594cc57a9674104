"""Curve: one quantity against the optimizer step, in bounded memory, by the extremes of each stretch of steps."""

from __future__ import annotations

import math

BUCKETS = 1000
"""Most stretches; each has two points, so that no peak is lost."""
MOST_UNDONE = 2000
"""Most points of undone steps."""
Point = tuple[float, "float | None"]
"""Place and value; None: the line is broken here."""


class Curve:
    """Takes values at growing steps and keeps at most two points of each stretch.

    Stretches double in length whenever there would be too many. Undone or repeated steps leave the line and are kept apart.

    Examples:
        >>> curve = Curve()
        >>> for step in range(10_000):
        ...     curve.add(step, 100.0 if step == 777 else 1.0)
        >>> points = curve.points()
        >>> len(points) <= 2 * BUCKETS, max(y for _, y in points)
        (True, 100.0)
    """

    __slots__ = ("_buckets", "_gap", "_width", "undone")

    def __init__(self) -> None:
        self._width = 1
        # first step // width; where the smallest is, it; where the largest is, it; whether the line is broken before; sum; count
        self._buckets: list[list[float]] = []
        self._gap = False
        self.undone: list[Point] = []
        """Undone pieces of the line, with a None after each."""

    def add(self, x: int, y: float) -> None:
        """Add the value ``y`` at step ``x``, which is not below the last one; a value that is not finite breaks the line."""
        if not math.isfinite(y):
            self._gap = True
            return
        buckets, key = self._buckets, x // self._width
        if buckets and buckets[-1][0] == key and not self._gap:
            bucket = buckets[-1]
            bucket[6] += y
            bucket[7] += 1
            if y < bucket[2]:
                bucket[1], bucket[2] = x, y
            elif y > bucket[4]:
                bucket[3], bucket[4] = x, y
            return
        buckets.append([key, x, y, x, y, self._gap, y, 1])
        self._gap = False
        while len(buckets) > BUCKETS:
            buckets = self._buckets = _halved(buckets)
            self._width *= 2

    def cut(self, x: float, *, broken: bool = True) -> None:
        """Move all beyond step ``x`` from the line to an undone piece that begins where the line ends.

        Args:
            x: The last step that stays.
            broken: Break the line there: the restored state is older than what comes next.
        """
        beyond: list[Point] = []
        while self._buckets and max(self._buckets[-1][1], self._buckets[-1][3]) > x:
            key, x_low, low, x_high, high, gap, *_ = self._buckets.pop()
            ends = sorted({(x_low, low), (x_high, high)})
            beyond += [(at, value) for at, value in reversed(ends) if at > x]
            if kept := [end for end in ends if end[0] <= x]:
                self._buckets.append([key, *kept[0], *kept[0], gap, kept[0][1], 1])
                break
        if beyond:
            self._gap = self._gap or broken
            if len(self.undone) + len(beyond) < MOST_UNDONE:
                root = [self._end()] if self._buckets else []
                self.undone += [*root, *reversed(beyond), (beyond[0][0], None)]

    def points(self) -> list[Point]:
        """Return the line by step, with a None at each break."""
        line: list[Point] = []
        for _, x_low, low, x_high, high, gap, *_ in self._buckets:
            first, second = ((x_low, low), (x_high, high)) if x_low <= x_high else ((x_high, high), (x_low, low))
            if gap and line:
                line.append((first[0], None))
            line.append(first)
            if second != first:
                line.append(second)
        return line

    def means(self, most: int) -> list[Point]:
        """Return the means of at most ``most`` stretches, and their breaks; empty if the line has no more points than that.

        Examples:
            >>> curve = Curve()
            >>> for step in range(100):
            ...     curve.add(step, float(step % 2))
            >>> curve.means(2)
            [(24.5, 0.5), (74.5, 0.5)]
        """
        if len(self._buckets) <= most:
            return []
        size = math.ceil(len(self._buckets) / most)
        line: list[Point] = []
        for start in range(0, len(self._buckets), size):
            part = self._buckets[start : start + size]
            x = sum(bucket[1] + bucket[3] for bucket in part) / (2 * len(part))
            if line and any(bucket[5] for bucket in part):
                line.append((x, None))
            line.append((x, sum(bucket[6] for bucket in part) / sum(bucket[7] for bucket in part)))
        return line

    def _end(self) -> Point:
        _, x_low, low, x_high, high, *_ = self._buckets[-1]
        return (x_low, low) if x_low > x_high else (x_high, high)

    @property
    def last(self) -> float | None:
        """The newest value kept: of a long stretch its smallest or largest, whichever came last."""
        return self._end()[1] if self._buckets else None


def _halved(buckets: list[list[float]]) -> list[list[float]]:
    """Return the stretches, joined in pairs."""
    joined: list[list[float]] = []
    for key, x_low, low, x_high, high, gap, total, amount in buckets:
        if joined and joined[-1][0] == key // 2:
            bucket = joined[-1]
            if low < bucket[2]:
                bucket[1], bucket[2] = x_low, low
            if high > bucket[4]:
                bucket[3], bucket[4] = x_high, high
            bucket[5] = bucket[5] or gap
            bucket[6] += total
            bucket[7] += amount
        else:
            joined.append([key // 2, x_low, low, x_high, high, gap, total, amount])
    return joined
