"""Figures of one run, from what it left in its folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidCallError
from ..report.figures import final_loss, norms, seconds_per_epoch
from ..report.run import read_run

TITLES = {"metrics/accuracy_top1": ("top-1", "top-5")}
"""Names of the two metrics, where they are not mAP50-95 and mAP50."""


@dataclass(frozen=True, kw_only=True)
class TrialFigures:
    """The figures of one run; None: not known."""

    epochs: int = 0
    """Completed epochs."""
    loss: float | None = None
    """Sum of the training loss's items in the last epoch, finite or not."""
    metric: str | None = None
    """The column that runs are ranked by."""
    score: float | None = None
    """Its best value."""
    second: float | None = None
    """The value of the column beside it, in the same epoch."""
    best_epoch: int | None = None
    norm_median: float | None = None
    """Of the global gradient norm before clipping, over the recorded steps."""
    norm_95: float | None = None
    norm_max: float | None = None
    """Over all applied steps."""
    rejections: int | None = None
    rollbacks: int | None = None
    starts: int | None = None
    """Processes that trained it, one after the other; above 1: it was resumed."""
    epoch_seconds: float | None = None
    """Median over the epochs, with validation, without set-up."""


def measure(folder: Path) -> TrialFigures:
    """Return the figures of a run, as on its page; those of a missing folder are not known."""
    try:
        run = read_run(folder)
    except InvalidCallError:
        return TrialFigures()
    results, history, best = run.results, run.history, run.best
    median, high, most, _ = norms(run)
    row = dict(zip(results.epochs, results.rows, strict=True))[best[1]] if best else {}
    return TrialFigures(
        epochs=len(results.rows),
        loss=final_loss(run),
        metric=results.measure if best else None,
        score=best[0] if best else None,
        second=row.get(results.beside),
        best_epoch=best[1] if best else None,
        norm_median=median,
        norm_95=high,
        norm_max=most,
        rejections=history.tally.rejected if run.guarded else None,
        rollbacks=history.tally.rollbacks if run.guarded else None,
        starts=history.processes if run.guarded else None,
        epoch_seconds=seconds_per_epoch(run),
    )
