"""Run summary: what ``summary.json`` and the closing table say of a run's events, earlier parts of the run included."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._shared.numbers import count, whole
from .format import FILES_SHOWN, incident_row
from .reader import read_events
from .tally import Tally

INCIDENTS_KEPT = 100
"""Rejections and escalations listed in ``summary.json``; the log has all of them."""
UNREADABLE_KEPT = 1000
"""Unreadable images listed there."""
ROWS = 10
"""Incidents, and left-out images, in the closing table."""


class Summary:
    """Takes the events of a run one by one.

    A resumed run repeats the epochs after its checkpoint: the newer events count, as on the page of the run.
    """

    def __init__(self) -> None:
        self._tally = Tally()
        self._incidents: list[dict[str, Any]] = []
        self._left_out: dict[str, None] = {}
        self._unreadable: dict[tuple[str, str], dict[str, Any]] = {}
        """By path and split, as a resumed run finds the same files again."""
        self._warnings: dict[str, int] = {}

    def read(self, log: Path) -> None:
        """Take the events of earlier parts of the run from a ``guard.jsonl``, if it can be read."""
        with contextlib.suppress(OSError):
            for event in read_events(log):
                self.add(event)

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an event of the log."""
        name = event["event"]
        if name in ("steps", "epoch"):  # most events, of which the summary has nothing
            return
        self._tally.add(event)
        epoch = self._tally.epoch
        if name == "start":
            before = whole(event.get("epochs_before")) or 0
            self._incidents = [one for one in self._incidents if one["epoch"] <= before]
        elif name == "rejection":
            files = [str(file) for file in event.get("files") or ()]
            self._keep(
                epoch=epoch,
                batch=event.get("batch"),
                what=event.get("what"),
                reason=event.get("reason"),
                files=files[:FILES_SHOWN],
                files_in_all=len(files),
            )
        elif name == "climb":
            self._keep(epoch=epoch, what=event.get("rung"), reason=event.get("reason"))
        elif name == "left_out":
            self._left_out[str(event.get("path"))] = None
        elif name == "unreadable":
            found = {key: event.get(key) for key in ("path", "why", "split")}
            self._unreadable[str(found["path"]), str(found["split"])] = found
            if event.get("split") == "train":
                self._left_out[str(event.get("path"))] = None
        elif name == "warning":
            what = str(event.get("what"))
            self._warnings[what] = self._warnings.get(what, 0) + 1

    def to_dict(self) -> dict[str, Any]:
        """Return the keys of ``summary.json`` that come from events."""
        return {
            "incidents": self._incidents,
            "incidents_in_all": self._tally.incidents,
            "steps_undone": self._tally.undone,
            "causes": self._tally.causes,
            "left_out": list(self._left_out),
            "unreadable": list(self._unreadable.values())[:UNREADABLE_KEPT],
            "unreadable_in_all": len(self._unreadable),
            "warnings": self._warnings,
        }

    def rows(self, folder: Path) -> list[tuple[str, str]]:
        """Return the closing table's rows of counts; ``folder`` is the run's."""
        rows = []
        if self._tally.escalations:
            rows.append(("escalations", f"{self._tally.escalations:,}, {count(self._tally.undone, 'step')} undone"))
        if self._tally.causes:
            found = ", ".join(f"{cause}: {n}" for cause, n in sorted(self._tally.causes.items()))
            rows.append(("causes found", f"{found}; see {folder / 'incidents'}"))
        if self._warnings:
            given = ", ".join(f"{what}: {n}" for what, n in sorted(self._warnings.items()))
            rows.append(("warnings", f"{given}; see above or guard.jsonl for what to do"))
        if self._unreadable:
            first = next(iter(self._unreadable.values()))
            rows.append(("unreadable", f"{len(self._unreadable)} images; first: {first['path']} {first['why']}"))
        return rows

    def listed(self) -> list[tuple[str, str]]:
        """Return the closing table's rows of left-out images and of the first incidents."""
        rows = [("left out", path) for path in list(self._left_out)[:ROWS]]
        rows += [("", incident_row(incident)) for incident in self._incidents[:ROWS]]
        if len(self._incidents) > ROWS:
            rows.append(("", f"and {self._tally.incidents - ROWS} more, in guard.jsonl"))
        return rows

    def _keep(self, **incident: Any) -> None:
        if len(self._incidents) < INCIDENTS_KEPT:
            self._incidents.append(incident)
