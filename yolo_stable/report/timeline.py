"""Timeline: what the guard did, in order; joined by epochs when it is too much to read."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field

MOST = 300
"""Most entries."""
KINDS = ("run", "rejection", "escalation", "incident", "warning", "left out", "checkpoint", "validation")
"""Kinds of entries, in the order of the page's filter."""


@dataclass
class TimelineEntry:
    """One event, or several of the same kind."""

    kind: str
    epoch: int
    text: str
    time: float | None = None
    step: int | None = None
    about: int = 0
    """The number of its incident; 0: none."""
    amount: int = 1
    last_epoch: int = 0
    others: bool = False
    """Whether some of the joined entries say something else."""

    def __post_init__(self) -> None:
        self.last_epoch = max(self.last_epoch, self.epoch)

    def join(self, other: TimelineEntry) -> None:
        """Join another entry."""
        self.others = self.others or other.others or _gist(other.text) != _gist(self.text)
        self.amount += other.amount
        self.last_epoch = max(self.last_epoch, other.last_epoch)
        self.about = self.about or other.about

    @property
    def where(self) -> str:
        """The epochs in words."""
        if self.last_epoch > self.epoch:
            return f"epochs {self.epoch} to {self.last_epoch}"
        return f"epoch {self.epoch}" if self.epoch else "start"

    @property
    def words(self) -> str:
        """The entry in words."""
        if self.amount == 1:
            return self.text
        return f"{self.amount:,} times, {'the first' if self.others else 'like the first'}: {self.text}"


@dataclass
class Timeline:
    """Keeps at most `MOST` entries: it drops none, but joins those of a kind and epoch.

    Examples:
        >>> timeline = Timeline()
        >>> for batch in range(1000):
        ...     timeline.add(TimelineEntry("rejection", 1 + batch // 500, f"batch {batch}: loss nan"))
        >>> [(entry.where, entry.amount) for entry in timeline.entries]
        [('epoch 1', 500), ('epoch 2', 500)]
    """

    entries: list[TimelineEntry] = field(default_factory=list)
    amounts: dict[str, int] = field(default_factory=dict)
    """Entries of each kind."""
    _level: int = 0
    _open: dict[Hashable, TimelineEntry] = field(default_factory=dict)

    def add(self, entry: TimelineEntry) -> None:
        """Add the latest entry."""
        self.amounts[entry.kind] = self.amounts.get(entry.kind, 0) + entry.amount
        if self._level:
            key = self._key(entry)
            if key in self._open:
                self._open[key].join(entry)
                return
            self._open[key] = entry
        self.entries.append(entry)
        while len(self.entries) > MOST:
            self._squeeze()

    def _squeeze(self) -> None:
        self._level += 1
        self._open, entries, self.entries = {}, self.entries, []
        for entry in entries:
            key = self._key(entry)
            if key in self._open:
                self._open[key].join(entry)
            else:
                self._open[key] = entry
                self.entries.append(entry)

    def _key(self, entry: TimelineEntry) -> Hashable:
        """Return the key of entries to join: first their words without numbers, then ever more epochs."""
        if self._level == 1:
            return entry.kind, entry.epoch, _gist(entry.text)
        return entry.kind, entry.epoch >> (self._level - 2)


def _gist(text: str) -> str:
    return re.sub(r"\d[\d.,e+-]*", "#", text)
