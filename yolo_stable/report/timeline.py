"""Timeline: what the guard did, in order; brought together by epochs when it was too much to be read."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field

MOST = 300
"""Entries at most."""
KINDS = ("run", "rejection", "escalation", "incident", "warning", "left out", "checkpoint", "validation")
"""The kinds that an entry can have, in the order of the page's filter."""


@dataclass
class TimelineEntry:
    """Something that happened, or several of the same kind."""

    kind: str
    epoch: int
    text: str
    time: float | None = None
    step: int | None = None
    about: int = 0
    """The number of the incident that it is about; 0: none."""
    amount: int = 1
    last_epoch: int = 0
    others: bool = False
    """Some of those that are brought together say something else."""

    def __post_init__(self) -> None:
        self.last_epoch = max(self.last_epoch, self.epoch)

    def join(self, other: TimelineEntry) -> None:
        """Bring another one in."""
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
        """What is said of it."""
        if self.amount == 1:
            return self.text
        return f"{self.amount:,} times, {'the first' if self.others else 'like the first'}: {self.text}"


@dataclass
class Timeline:
    """Takes entries and keeps at most `MOST` of them: never drops one, but brings those of a kind and epoch together.

    Examples:
        >>> timeline = Timeline()
        >>> for batch in range(1000):
        ...     timeline.add(TimelineEntry("rejection", 1 + batch // 500, f"batch {batch}: loss nan"))
        >>> [(entry.where, entry.amount) for entry in timeline.entries]
        [('epoch 1', 500), ('epoch 2', 500)]
    """

    entries: list[TimelineEntry] = field(default_factory=list)
    amounts: dict[str, int] = field(default_factory=dict)
    """How many there were of each kind."""
    _level: int = 0
    _open: dict[Hashable, TimelineEntry] = field(default_factory=dict)

    def add(self, entry: TimelineEntry) -> None:
        """Add what happened last."""
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
        """Return what entries have in common that come together: first all but numbers, then ever more epochs."""
        if self._level == 1:
            return entry.kind, entry.epoch, _gist(entry.text)
        return entry.kind, entry.epoch >> (self._level - 2)


def _gist(text: str) -> str:
    return re.sub(r"\d[\d.,e+-]*", "#", text)
