"""Warning rules: pure rules from the numbers of a run to a sentence that a person can act on."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from ..guard.shares import Shares

NORM, SCALE, TREND, LAYER = "norm over limit", "loss scale falling", "norm rising", "one layer dominates"

SPAN = 50
"""Optimizer steps over which the size of the norm is judged: a single one above the limit is clipped and does no harm."""
PATIENCE = 1000
"""Optimizer steps that the norm of a fresh model may take to fall below the limit. A yolo11n from its YAML had norms of 400 to
900 for its first hundred steps, while it learned as it should."""
FAR = 1000.0
"""A single norm this many times the limit is a warning at once. The largest in honest training was 39 times 100, in a warm-up."""
SCALES = 20
"""Records of the loss scale that a rule judges."""
FALL = 4.0
"""Factor by which the scale has to fall: torch's own growth ends with an overflow that halves it, now and then."""
TRENDS = 40
"""Records of a trend; the rule compares their first and last quarter."""
RISE = 3.0
"""Factor by which the norm has to rise from the one to the other."""
TAU = 0.5
"""Least rank correlation with time (Kendall's tau) of a rise. 40 values that do not depend on time exceed it once in about
400,000 (4.5 standard deviations)."""
SHARE = 0.9
"""Share of the squared norm above which a module dominates."""
DOMINATED, LOOKED_AT = 8, 10
"""In so many of so many records."""
FEWEST_MODULES = 5
"""With fewer modules, one of them always has a large share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caution:
    """One warning."""

    what: str
    message: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class Span:
    """What is kept of the norms between two records."""

    steps: int
    over: int
    """Steps whose norm was above the limit."""
    total: float
    """Sum of the norms."""
    largest: float


def newest(spans: Sequence[Span]) -> Span | None:
    """Return the newest spans of at least :data:`SPAN` steps as one; None if there are fewer steps.

    Examples:
        >>> newest([Span(40, 0, 80.0, 9.0), Span(40, 40, 8000.0, 300.0), Span(10, 4, 900.0, 400.0)])
        Span(steps=50, over=44, total=8900.0, largest=400.0)
    """
    steps = over = 0
    total = largest = 0.0
    for span in reversed(spans):
        steps, over, total = steps + span.steps, over + span.over, total + span.total
        largest = max(largest, span.largest)
        if steps >= SPAN:
            return Span(steps, over, total, largest)
    return None


def absurd_norm(span: Span, limit: float) -> Caution | None:
    """Warn of a single norm since the last record that is too large for any learning rate.

    Examples:
        >>> absurd_norm(Span(10, 1, 2e6, 2e6), limit=100.0).value, absurd_norm(Span(10, 10, 5e4, 9e4), limit=100.0)
        (2000000.0, None)
    """
    if span.largest <= FAR * limit:
        return None
    when = "in the last step" if span.steps == 1 else f"within the last {span.steps} steps"
    message = (
        f"a gradient norm of {span.largest:.3g} {when}, far above guard.warn_norm={limit:g}. One image or label can cause that."
        f" Reject such steps with guard.reject_norm={span.largest / 10:.1g}, and look for the cause:\nyolo-stable check DATA"
    )
    return Caution(what=NORM, message=message, value=span.largest, limit=limit)


def norm_over_limit(
    spans: Sequence[Span], limit: float, *, came_below: bool, step: int, max_norm: float | None
) -> Caution | None:
    """Warn of a norm before clipping above the limit in most of the newest :data:`SPAN` steps.

    Args:
        spans: Oldest first, without the warm-up.
        limit: ``guard.warn_norm``.
        came_below: Whether most norms were below it at some time, as in a healthy run sooner or later.
        step: Optimizer steps applied so far.
        max_norm: Clip limit, or None.
    """
    seen = newest(spans)
    if seen is None or is_below(seen) or not (came_below or step >= PATIENCE):
        return None
    mean = seen.total / seen.steps
    after = "nothing clips them" if max_norm is None else f"clipped to {max_norm:g}, they all move equally far"
    way = "Set guard.max_norm=10, or lower" if max_norm is None else "Lower"
    message = (
        f"the gradient norm was above guard.warn_norm={limit:g} in {seen.over} of the last {seen.steps} steps, {mean:.3g} on"
        f" average: {after}. {way} lr0 (optimizer=auto ignores it), or take --preset stable; when the validation improves all"
        " the same, set guard.warn_norm higher"
    )
    return Caution(what=NORM, message=message, value=mean, limit=limit)


def is_below(span: Span) -> bool:
    """Return whether at least half of the norms were not above the limit."""
    return span.over * 2 <= span.steps


def loss_scale_falling(scales: Sequence[float]) -> Caution | None:
    """Warn of a loss scale that has fallen and stayed down, by the newest records.

    Examples:
        >>> loss_scale_falling([65536.0, 65536.0, 8192.0]).value
        8192.0
        >>> loss_scale_falling([65536.0, 8192.0, 65536.0]) is loss_scale_falling([65536.0, 32768.0]) is None
        True
    """
    seen = list(scales)[-SCALES:]
    if not seen or seen[-1] * FALL > max(seen):
        return None
    message = (
        f"the loss scale fell from {max(seen):g} to {seen[-1]:g} and has not recovered: gradients overflow in float16 again and"
        " again. Use amp=bf16 where the device has it, or amp=False; or lower lr0"
    )
    return Caution(what=SCALE, message=message, value=seen[-1], limit=max(seen) / FALL)


def norm_rising(norms: Sequence[float]) -> Caution | None:
    """Warn of a norm that rises steadily over the newest :data:`TRENDS` records.

    Args:
        norms: Before clipping, oldest first, without the warm-up; those that are not finite are ignored.

    Examples:
        >>> norm_rising([1.1**i for i in range(40)]).limit, norm_rising([1.0, 9.0] * 20)
        (3.0, None)
    """
    seen = [norm for norm in norms if math.isfinite(norm)][-TRENDS:]
    if len(seen) < TRENDS:
        return None
    quarter = TRENDS // 4
    before, now = statistics.median(seen[:quarter]), statistics.median(seen[-quarter:])
    if not (before > 0.0 and now >= RISE * before and rank_correlation(seen) >= TAU):
        return None
    message = (
        f"the gradient norm rises steadily: {before:.3g} to {now:.3g} over the last {TRENDS} records. A run that diverges begins"
        " like that. Lower lr0 (a half is a good first try), or take --preset stable; warmup_epochs higher when it is early"
    )
    return Caution(what=TREND, message=message, value=now / before, limit=RISE)


def one_layer_dominates(layers: Sequence[Shares]) -> Caution | None:
    """Warn of one module that dominates the gradient, by the newest :data:`LOOKED_AT` records.

    Args:
        layers: The modules of each record by their share of the squared norm, largest first, oldest record first; empty for a
            step that was not clipped.
    """
    seen = list(layers)[-LOOKED_AT:]
    tops = [of[0][0] for of in seen if len(of) >= FEWEST_MODULES and of[0][1] > SHARE]
    name = max(set(tops), key=lambda top: (tops.count(top), top), default="")
    if not name or tops.count(name) < DOMINATED:
        return None
    share = statistics.median(of[0][1] for of in seen if of and of[0][0] == name)
    message = (
        f"{name} alone makes {share:.0%} of the squared gradient norm, in {tops.count(name)} of the last {len(seen)} records:"
        " clipping then shrinks the steps of all other layers because of it. Look at its weights and at the part of the loss"
        " that it serves; guard.max_norm=none or a lower lr0 shows whether it is the clipping that hurts"
    )
    return Caution(what=LAYER, message=message, value=share, limit=SHARE)


def rank_correlation(values: Sequence[float]) -> float:
    """Return Kendall's tau of values and their order in time: 1 if each is above all before it, 0 without a trend.

    Examples:
        >>> rank_correlation([1.0, 2.0, 3.0]), rank_correlation([3.0, 2.0, 1.0]), rank_correlation([1.0, 1.0])
        (1.0, -1.0, 0.0)
    """
    pairs = [(a, b) for i, a in enumerate(values) for b in values[i + 1 :]]
    return sum((b > a) - (b < a) for a, b in pairs) / len(pairs)
