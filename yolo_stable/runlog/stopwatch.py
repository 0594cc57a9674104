"""Stopwatch: how long training itself has taken, without what comes in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Stopwatch:
    """A stopwatch that stands still while validating, saving and looking into an incident; made standing.

    Args:
        now: Seconds of a clock that only goes on.

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
        """Run on; nothing when it runs already."""
        if self._since is None:
            self._since = self._now()

    def stop(self) -> None:
        """Stand still; nothing when it does already."""
        if self._since is not None:
            self._seconds += self._now() - self._since
            self._since = None

    def take(self) -> float:
        """Return the seconds that it ran since this was called last, and begin anew."""
        seconds, self._seconds = self._seconds, 0.0
        if self._since is not None:
            now = self._now()
            seconds += now - self._since
            self._since = now
        return seconds

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave out what is done in here."""
        ran = self._since is not None
        self.stop()
        try:
            yield
        finally:
            if ran:
                self.go()
