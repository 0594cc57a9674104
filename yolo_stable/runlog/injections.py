"""Injections: faults put into a run on purpose, how often each has fired, and whether one has just fired.

They come into a trainer's class from outside (`chaos`, ``--inject``). A run's incidents have to know of them: nobody should
repair a healthy picture, or suspect a healthy device.
"""

from __future__ import annotations

from typing import Any


class Injections:
    """The faults in a trainer's class."""

    def __init__(self, kind: type) -> None:
        armed = [vars(base)["chaos"] for base in kind.__mro__ if hasattr(vars(base).get("chaos"), "fired")]
        asked: Any = getattr(kind, "injected", None)
        written = zip(getattr(asked, "armed", ()), getattr(asked, "injections", ()), strict=True)
        words = {id(one): str(injection) for one, injection in written}
        self._faults = [(words.get(id(one)) or _in_words(getattr(one, "fault", one)), one) for one in reversed(armed)]
        self._batch = self._window = self._escalation = self._counts()

    @property
    def names(self) -> tuple[str, ...]:
        """All faults, as for ``--inject`` or in words."""
        return tuple(name for name, _ in self._faults)

    @property
    def fired(self) -> dict[str, int]:
        """How often each has fired."""
        return {name: int(armed.fired) for name, armed in self._faults}

    @property
    def over(self) -> tuple[str, ...]:
        """The faults that have fired."""
        return tuple(name for name, times in self.fired.items() if times)

    def begin_batch(self) -> None:
        """Begin a micro-batch."""
        self._batch = self._counts()

    def end_window(self) -> None:
        """Begin the next window."""
        self._window = self._counts()

    def escalated(self) -> None:
        """Note that an escalation has undone what has fired until now."""
        self._escalation = self._counts()

    def just_now(self, kind: str) -> tuple[str, ...]:
        """Return the faults that fired in an incident.

        Args:
            kind: ``micro_batch``, ``window``, ``validation`` (no fault goes there), or a level of escalation: it covers all since
                the last one.
        """
        if kind == "validation":
            return ()
        before = {"micro_batch": self._batch, "window": self._window}.get(kind, self._escalation)
        return tuple(
            name for (name, _), now, then in zip(self._faults, self._counts(), before, strict=True) if now > then
        )

    def has_broken(self, file: str) -> bool:
        """Return whether a fault breaks this file whenever it is drawn."""
        paths = [getattr(getattr(armed, "fault", None), "file", None) for _, armed in self._faults]
        return any(isinstance(path, str) and path and file.endswith(path) for path in paths)

    def _counts(self) -> list[int]:
        return [int(armed.fired) for _, armed in self._faults]


def _in_words(fault: Any) -> str:
    place, value = getattr(fault, "place", type(fault).__name__), getattr(fault, "value", None)
    return f"{place} {value:g}" if isinstance(value, (int, float)) else str(place)
