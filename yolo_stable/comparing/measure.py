"""The figures of one run, from what it has left in its folder."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .run_files import first_epochs, read_log, read_rows, that_count

SCORES = {
    "metrics/mAP50-95(M)": "metrics/mAP50(M)",
    "metrics/mAP50-95(P)": "metrics/mAP50(P)",
    "metrics/mAP50-95(B)": "metrics/mAP50(B)",
    "metrics/accuracy_top1": "metrics/accuracy_top5",
}
"""What runs are ranked by, and what is shown beside it; of masks and keypoints before boxes, which the same run has too."""
TITLES = {"metrics/accuracy_top1": ("top-1", "top-5")}
"""What the two are called, where it is not mAP50-95 and mAP50."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The figures of one run; None: not known."""

    epochs: int = 0
    """Epochs that were completed."""
    loss: float | None = None
    """Sum of the items of the training loss in the last epoch; NaN and infinities as they are."""
    metric: str | None = None
    """The column that runs are ranked by."""
    score: float | None = None
    """Its best value."""
    second: float | None = None
    """The value of the column beside it, in the same epoch."""
    best_epoch: int | None = None
    norm_median: float | None = None
    """Of the global gradient norm before clipping, over the steps that were noted."""
    norm_95: float | None = None
    norm_max: float | None = None
    """Over all applied steps."""
    rejections: int | None = None
    rollbacks: int | None = None
    starts: int | None = None
    """Processes that have trained it, one after the other; above 1: it was resumed."""
    epoch_seconds: float | None = None
    """Median over the epochs, validation included, setting up not."""


def measure(folder: Path) -> Measured:
    """Return the figures of a run.

    Args:
        folder: Of the run; of one that is not there nothing is known.
    """
    rows, log = read_rows(folder / "results.csv"), read_log(folder / "guard.jsonl")
    events = that_count(log)
    return Measured(
        epochs=len(rows),
        loss=_final_loss(rows),
        **_best(rows),
        **_norms(events),
        rejections=_count(events, "rejection") if log else None,
        rollbacks=_count(events, "climb", rung=("roll_back", "lower_precision")) if log else None,
        starts=_count(log, "start") if log else None,
        epoch_seconds=_epoch_seconds(rows, first_epochs(log)),
    )


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that a share of all does not exceed, on the line between the two nearest.

    Args:
        values: One or more.
        share: 0 to 1.

    Examples:
        >>> quantile([1.0, 2.0, 4.0], 0.5), quantile([1.0, 2.0], 0.95)
        (2.0, 1.95)
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _final_loss(rows: Mapping[int, Mapping[str, float]]) -> float | None:
    if not rows:
        return None
    items = [value for name, value in rows[max(rows)].items() if name.startswith("train/")]
    return sum(items) if items else None


def _best(rows: Mapping[int, Mapping[str, float]]) -> dict[str, Any]:
    for name, beside in SCORES.items():
        found = {epoch: row[name] for epoch, row in rows.items() if math.isfinite(row.get(name, math.nan))}
        if found:
            epoch = max(found, key=lambda epoch: (found[epoch], -epoch))
            return {"metric": name, "score": found[epoch], "second": rows[epoch].get(beside), "best_epoch": epoch}
    return {}


def _norms(events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the quantiles over the steps that were noted; without such notes, the median of the epochs' means.

    The largest is known from the epochs, of which each has seen all its steps.
    """
    noted = _numbers(event.get("norm") for event in events if event.get("event") == "steps")
    epochs = [event for event in events if event.get("event") == "epoch"]
    means, largest = (_numbers(event.get(key) for event in epochs) for key in ("norm_mean", "norm_max"))
    return {
        "norm_median": quantile(noted, 0.5) if noted else quantile(means, 0.5) if means else None,
        "norm_95": quantile(noted, 0.95) if noted else None,
        "norm_max": max(largest + noted, default=None),
    }


def _numbers(values: Any) -> list[float]:
    return [float(value) for value in values if isinstance(value, (int, float)) and math.isfinite(value)]


def _count(events: Sequence[Mapping[str, Any]], kind: str, rung: Sequence[str] | None = None) -> int:
    return sum(event.get("event") == kind and (rung is None or event.get("rung") in rung) for event in events)


def _epoch_seconds(rows: Mapping[int, Mapping[str, float]], first: set[int]) -> float | None:
    """Return the median of the epochs' times; the column ``time`` counts from the start of the process."""
    spent = []
    for epoch, row in rows.items():
        before = 0.0 if epoch in first else rows.get(epoch - 1, {}).get("time", math.nan)
        spent.append(row.get("time", math.nan) - before)
    spent = [seconds for seconds in spent if math.isfinite(seconds) and seconds >= 0]
    return statistics.median(spent) if spent else None
