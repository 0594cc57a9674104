"""Stopwatch: the duration of training itself, without pauses."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """Stands still during validations, saves and autopsies; starts standing.

    Args:
        now: Returns the seconds of a monotonic clock.

    Examples:
        >>> times = iter([10.0, 12.0, 100.0, 101.0])
        >>> clock = Stopwatch(lambda: next(times))
        >>> clock.go(); clock.stop(); clock.go(); clock.take()
        3.0
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._since: float | None = None
        self._seconds = 0.0

    def go(self) -> None:
        """Run, if it does not already."""
        if self._since is None:
            self._since = self._now()

    def stop(self) -> None:
        """Stand still, if it does not already."""
        if self._since is not None:
            self._seconds += self._now() - self._since
            self._since = None

    def take(self) -> float:
        """Return the running seconds since the last call, and restart."""
        seconds, self._seconds = self._seconds, 0.0
        if self._since is not None:
            now = self._now()
            seconds += now - self._since
            self._since = now
        return seconds

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Stand still within this context."""
        ran = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if ran:
                self.go()
