"""Ranking of a comparison: the runs in order, the groups over the seeds, and a conclusion."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .measure import TITLES, TrialFigures
from .outcome import DONE, TrialOutcome
from .trial import Trial


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One run with its outcome and figures."""

    trial: Trial
    outcome: TrialOutcome
    measured: TrialFigures


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A figure over the seeds of a group."""

    mean: float
    width: float
    """From the lowest to the highest."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return mean and width of one or more values."""
        return cls(mean=statistics.fmean(values), width=max(values) - min(values))


@dataclass(frozen=True, kw_only=True)
class Group:
    """Runs that differ only in their seed."""

    name: str
    rows: tuple[TrialRow, ...]
    """Those that are done."""
    runs: int
    """All of them."""
    loss: Spread | None
    score: Spread | None
    second: Spread | None
    epoch_seconds: Spread | None


def ranked(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """Return the rows with the best score first, then the lowest loss; unknown ones come last."""
    return sorted(rows, key=lambda row: _order(row.measured.score, row.measured.loss))


def groups_of(rows: Sequence[TrialRow]) -> list[Group]:
    """Return the groups, ranked by their mean score and loss."""
    names = dict.fromkeys(row.trial.group for row in rows)
    groups = [_group(name, [row for row in rows if row.trial.group == name]) for name in names]
    return sorted(groups, key=lambda group: _order(_mean(group.score), _mean(group.loss)))


def conclusion(rows: Sequence[TrialRow]) -> str:
    """Return a sentence: which run is best, and whether its lead exceeds chance."""
    groups = [group for group in groups_of(rows) if group.rows]
    unfinished = len(rows) - sum(len(group.rows) for group in groups)
    tail = f" {unfinished} of {len(rows)} runs are not done and do not count here." if unfinished else ""
    if not groups:
        return "No run is done, so there is nothing to compare. The reasons are above."
    best = groups[0]
    if len(groups) == 1:
        return _alone(best) + tail
    other = groups[1]
    title = title_of(rows)[0]
    if best.score is None or other.score is None or not best.score.mean > 0:
        # Nor can the loss: it is small for a detector that finds no object.
        return f"{title} is 0 or unknown in all runs, so it cannot tell which is best: train more epochs.{tail}"
    lead = best.score.mean - other.score.mean
    head = f"Best: {best.name} with {title} {best.score.mean:.4g}, {lead:.2g} ahead of {other.name}."
    if lead == 0:
        head = f"{best.name} and {other.name} have the same {title}, {best.score.mean:.4g}; the first has the lower final loss."
    seeds = min(len(best.rows), len(other.rows))
    if seeds < 2:
        return f"{head} One seed cannot tell whether that is more than chance; --seeds 0,1,2 can.{tail}"
    width = max(best.score.width, other.score.width)
    verdict = (
        f"That is more than the spread over {seeds} seeds ({width:.2g})"
        if lead > width
        else f"That is not more than the spread over {seeds} seeds ({width:.2g}), so it may be chance"
    )
    won, pairs = _won(best, other)
    return f"{head} {verdict}; with the same seed it was ahead {won} of {pairs} times.{tail}"


def title_of(rows: Sequence[TrialRow]) -> tuple[str, str]:
    """Return the names of the score and of the figure beside it."""
    metric = next((row.measured.metric for row in rows if row.measured.metric), None)
    return TITLES.get(metric or "", ("mAP50-95", "mAP50"))


def _alone(group: Group) -> str:
    if len(group.rows) < 2 or group.score is None:
        return f"Only {group.name} is done, so there is nothing to compare it with."
    lowest = min(row.measured.score or 0.0 for row in group.rows)
    return (
        f"{group.name}: mean {title_of(group.rows)[0]} {group.score.mean:.4g} over {len(group.rows)} seeds, from {lowest:.4g} to"
        f" {lowest + group.score.width:.4g}. A smaller difference is chance."
    )


def _won(best: Group, other: Group) -> tuple[int, int]:
    """Return how often one was ahead of the other with the same seed, and the number of such pairs."""
    mine, theirs = ({row.trial.choice.get("seed"): row.measured.score or 0.0 for row in g.rows} for g in (best, other))
    pairs = [(mine[seed], theirs[seed]) for seed in mine if seed in theirs]
    return sum(a > b for a, b in pairs), len(pairs)


def _group(name: str, rows: Sequence[TrialRow]) -> Group:
    done = tuple(row for row in rows if row.outcome.status == DONE)

    def spread(figure: Callable[[TrialFigures], float | None]) -> Spread | None:
        values = [value for row in done if (value := figure(row.measured)) is not None]
        return Spread.of(values) if values else None

    return Group(
        name=name,
        rows=done,
        runs=len(rows),
        loss=spread(lambda m: m.loss),
        score=spread(lambda m: m.score),
        second=spread(lambda m: m.second),
        epoch_seconds=spread(lambda m: m.epoch_seconds),
    )


def _mean(spread: Spread | None) -> float | None:
    return None if spread is None else spread.mean


def _order(score: float | None, loss: float | None) -> tuple[Any, ...]:
    known = loss is not None and math.isfinite(loss)
    return (score is None, -(score or 0.0), not known, loss if known else 0.0)
