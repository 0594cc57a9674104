"""Figures: the final numbers of a run."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from .._shared.numbers import count, duration, finite, short
from .run import Run
from .verdict import measure_name


@dataclass(frozen=True)
class Figure:
    """A number with its name and a note."""

    name: str
    value: str
    note: str = ""
    apart: bool = True
    """Whether the page of a single run shows it: there, another figure's note may contain it."""


def figures(run: Run) -> list[Figure]:
    """Return the same numbers for each run, with an empty value for an unknown one."""
    history, planned = run.history, run.epochs_planned
    best = run.best
    steps = finite(run.counts.get("applied"))
    clipped = finite(run.counts.get("clipped"))
    share = f"{100 * clipped / steps:.0f} % clipped" if steps and clipped is not None else ""
    seconds = seconds_per_epoch(run)
    median, high, most, of = norms(run)
    loss = final_loss(run)
    return [
        Figure("status", {"stock": "without a guard"}.get(run.status, run.status)),
        Figure("epochs", f"{run.epochs_done:,}" + (f" of {planned:,}" if planned else "")),
        Figure(
            f"best {measure_name(run) or 'mAP'}",
            short(round(best[0], 4)) if best else "",
            f"epoch {best[1]}" if best else "",
        ),
        Figure("final loss", short(loss), "train, sum of all parts" if loss is not None else ""),
        Figure("optimizer steps", short(steps or history.step or None), share),
        Figure(
            "gradient norm, median", short(median), f"95 %: {short(high)}, largest {short(most)}; {of}" if of else ""
        ),
        Figure("95 %", short(high), of, apart=False),
        Figure("largest", short(most), apart=False),
        Figure("rejected", f"{history.tally.rejected:,}" if run.guarded else ""),
        Figure(
            "rollbacks",
            f"{history.tally.rollbacks:,}" if run.guarded else "",
            f"{count(history.tally.undone, 'step')} undone" if history.tally.undone else "",
        ),
        Figure("per epoch", duration(seconds) if seconds is not None else "", "median" if seconds is not None else ""),
    ]


def seconds_per_epoch(run: Run) -> float | None:
    """Return the median duration of an epoch; the clock of ``results.csv`` restarts when a run is resumed."""
    clock = dict(run.results.column("time"))
    first = {*run.results.epochs[:1]} & {0, 1} | run.history.firsts
    laps = [
        now if epoch in first or clock.get(epoch - 1, 0.0) > now else now - clock.get(epoch - 1, math.nan)
        for epoch, now in clock.items()
    ]
    laps = [lap for lap in laps if math.isfinite(lap) and lap >= 0]
    return statistics.median(laps) if laps else None


def final_loss(run: Run) -> float | None:
    """Return the sum of the training losses of the last epoch."""
    names = [name for name in run.results.columns if name.startswith("train/")]
    if names and run.results.rows:
        return sum(run.results.rows[-1].get(name, 0.0) for name in names)
    for name in ("loss/sum", *(name for name in run.history.curves if name.startswith("loss/"))):
        if name in run.history.curves:
            return run.history.curves[name].last
    return None


def norms(run: Run) -> tuple[float | None, float | None, float | None, str]:
    """Return median, 95 % quantile and maximum of the gradient norm, and what the first two are of."""
    seen = run.history.norms
    largest = [value for _, value in run.results.column("guard/grad_norm_max") if finite(value) is not None]
    largest += [v for event in run.history.epochs.values() if (v := finite(event.get("norm_max"))) is not None]
    if seen.most is not None:
        return seen.quantile(0.5), seen.quantile(0.95), max([seen.most, *largest]), "of the steps in the log"
    means = [v for event in run.history.epochs.values() if (v := finite(event.get("norm_mean"))) is not None]
    means = means or [value for _, value in run.results.column("guard/grad_norm") if finite(value) is not None]
    if not means:
        return None, None, max(largest, default=None), ""
    ordered = sorted(means)
    high = ordered[min(int(0.95 * len(ordered)), len(ordered) - 1)]
    return statistics.median(ordered), high, max([*ordered, *largest]), "of the epochs' means"
