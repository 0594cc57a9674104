"""Injections: faults that were put into a run on purpose, how often each has fired, and whether one has just now.

They are put into a trainer's class from outside (`chaos`, ``--inject``) and change nothing here. What a run says of its incidents
has to know of them all the same: a healthy picture is not to be repaired, nor a healthy device to be suspected.
"""

from __future__ import annotations

from typing import Any


class Injections:
    """The faults in a trainer's class.

    Args:
        kind: The class.
    """

    def __init__(self, kind: type) -> None:
        armed = [vars(base)["chaos"] for base in kind.__mro__ if hasattr(vars(base).get("chaos"), "fired")]
        asked: Any = getattr(kind, "injected", None)
        written = zip(getattr(asked, "armed", ()), getattr(asked, "injections", ()), strict=True)
        words = {id(one): str(injection) for one, injection in written}
        self._faults = [(words.get(id(one)) or _in_words(getattr(one, "fault", one)), one) for one in reversed(armed)]
        self._batch = self._window = self._escalation = self._counts()

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, as they are written for ``--inject`` or in words."""
        return tuple(name for name, _ in self._faults)

    @property
    def fired(self) -> dict[str, int]:
        """How often each has fired."""
        return {name: int(armed.fired) for name, armed in self._faults}

    @property
    def over(self) -> tuple[str, ...]:
        """Those that have fired."""
        return tuple(name for name, times in self.fired.items() if times)

    def begin_batch(self) -> None:
        """Remember how often each had fired before a micro-batch."""
        self._batch = self._counts()

    def end_window(self) -> None:
        """Remember how often each had fired before the next window."""
        self._window = self._counts()

    def escalated(self) -> None:
        """Remember that what has fired until now has been undone."""
        self._escalation = self._counts()

    def just_now(self, kind: str) -> tuple[str, ...]:
        """Return which have fired in what an incident is about.

        Args:
            kind: Of the incident: ``micro_batch``, ``window``, ``validation`` (into which none is put), or another one, which
                is about all since the last escalation.
        """
        if kind == "validation":
            return ()
        before = {"micro_batch": self._batch, "window": self._window}.get(kind, self._escalation)
        return tuple(
            name for (name, _), now, then in zip(self._faults, self._counts(), before, strict=True) if now > then
        )

    def has_broken(self, file: str) -> bool:
        """Return whether a file is broken on purpose whenever it is drawn."""
        paths = [getattr(getattr(armed, "fault", None), "file", None) for _, armed in self._faults]
        return any(isinstance(path, str) and path and file.endswith(path) for path in paths)

    def _counts(self) -> list[int]:
        return [int(armed.fired) for _, armed in self._faults]


def _in_words(fault: Any) -> str:
    place, value = getattr(fault, "place", type(fault).__name__), getattr(fault, "value", None)
    return f"{place} {value:g}" if isinstance(value, (int, float)) else str(place)
