"""Tally: counts of a run's events, with epochs that a resumed run repeats counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from .._shared.numbers import text, whole

EPOCHS = 100_000
CAUSES = 50
"""Most different causes."""
ROLLED_BACK = ("roll_back", "lower_precision")
UNDECIDED = "undecided"
_CAUSE = "cause: "


class Tally:
    """Counts rejections, escalations and causes as their events come, by epoch."""

    def __init__(self) -> None:
        self.epoch = 0
        """Epoch of the newest event, from 1."""
        self._by_epoch: dict[int, Counter[str]] = {}
        self._total: Counter[str] = Counter()
        self._open = ""
        """Kind of the newest rejection or escalation, until its autopsy."""

    @property
    def rejected(self) -> int:
        """Micro-batches and windows that were rejected."""
        return self._total["rejected"]

    @property
    def escalations(self) -> int:
        """Escalations, halts included."""
        return self._total["escalations"]

    @property
    def rollbacks(self) -> int:
        """Rollbacks of the whole state."""
        return self._total["rollbacks"]

    @property
    def repairs(self) -> int:
        """Repairs of the EMA alone."""
        return self._total["repairs"]

    @property
    def undone(self) -> int:
        """Steps that escalations have undone."""
        return self._total["undone"]

    @property
    def incidents(self) -> int:
        """Rejections, escalations, and validations with an autopsy."""
        return self._total["incidents"]

    @property
    def causes(self) -> dict[str, int]:
        """How often autopsies named each cause, in the order of first mention."""
        return {k.removeprefix(_CAUSE): n for k, n in self._total.items() if k.startswith(_CAUSE)}

    def add(self, event: Mapping[str, Any]) -> None:
        """Count an event, which has the key ``event`` and may come from a stranger's log; ignore an unknown one."""
        epoch = whole(event.get("epoch"))
        if epoch is not None and epoch <= EPOCHS:
            self.epoch = epoch
        name = event["event"]
        if name == "start":
            self._forget(whole(event.get("epochs_before")) or 0)
            self._open = ""
        elif name == "rejection":
            self._open = kind_of(event)
            self._count("rejected", "incidents")
        elif name == "climb":
            self._open = kind = kind_of(event)
            self._count(
                "escalations", "incidents", *["repairs"] * (kind == "repair"), *["rollbacks"] * (kind in ROLLED_BACK)
            )
            self._count("undone", amount=whole(event.get("lost")) or 0)
        elif name == "incident":
            if self._open != event.get("kind"):  # a validation, or its rejection was in a damaged line
                self._count("incidents")
            self._open = ""
            cause = _CAUSE + (text(event.get("cause"), 60) or UNDECIDED)
            if cause in self._total or len(self.causes) < CAUSES:
                self._count(cause)

    def _count(self, *names: str, amount: int = 1) -> None:
        for name in names if amount else ():
            self._total[name] += amount
            self._by_epoch.setdefault(self.epoch, Counter())[name] += amount

    def _forget(self, before: int) -> None:
        """Uncount the epochs that a resumed run repeats."""
        for epoch in [epoch for epoch in self._by_epoch if epoch > before]:
            self._total -= self._by_epoch.pop(epoch)  # drops what is down to 0


def kind_of(event: Mapping[str, Any]) -> str:
    """Return what a ``rejection`` rejected, or the level (``rung``) of an escalation (``climb``)."""
    if event["event"] == "rejection":
        return "window" if event.get("what") == "window" else "micro_batch"
    rung = event.get("rung")
    return rung if isinstance(rung, str) and rung in ("repair", *ROLLED_BACK, "halt") else "roll_back"
