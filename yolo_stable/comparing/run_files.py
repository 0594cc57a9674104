"""What a run has written so far: the rows of ``results.csv`` and the events that count."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..events import read_events


def read_rows(path: Path) -> dict[int, dict[str, float]]:
    """Return the rows of a ``results.csv`` by epoch; the last one of an epoch that was trained again.

    Args:
        path: The file; one that is not there has no rows, and a row that is being written does not count.

    Returns:
        Epoch (from 1) to column name and number; a cell that is no number is NaN.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return {}
    reader = csv.reader(text[: text.rfind("\n") + 1].splitlines())
    head = [name.strip() for name in next(reader, [])]
    rows = {}
    for cells in reader:
        if len(cells) != len(head):
            continue
        row = {name: _number(cell) for name, cell in zip(head, cells, strict=True)}
        epoch = row.get("epoch", math.nan)
        if epoch >= 1:
            rows[int(epoch)] = row
    return dict(sorted(rows.items()))


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the events of a ``guard.jsonl``; none when it is not there or cannot be read."""
    try:
        return read_events(path)
    except (OSError, ValueError):
        return []


def that_count(events: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave out what a resumed run has trained again: it is told twice.

    Examples:
        >>> log = [("start", 0, 0), ("rejection", 2, None), ("start", 0, 1), ("rejection", 2, None)]
        >>> events = [{"event": kind, "epoch": epoch, "epochs_before": before} for kind, epoch, before in log]
        >>> [event["event"] for event in that_count(events)]
        ['start', 'start', 'rejection']
    """
    kept: list[dict[str, Any]] = []
    for event in events:
        if event.get("event") == "start":
            before = event.get("epochs_before") or 0
            kept = [old for old in kept if old.get("epoch", 0) <= before]
        kept.append(event)
    return kept


def first_epochs(events: Sequence[dict[str, Any]]) -> set[int]:
    """Return the epochs (from 1) that a run was begun or resumed with: its clock starts anew there."""
    return {1, *(1 + (event.get("epochs_before") or 0) for event in events if event.get("event") == "start")}


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan
