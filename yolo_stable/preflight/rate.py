"""The stage of the learning rate: a short sweep, to see how far the chosen one is from where training falls apart."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..trainer.found import finding
from .budget import affordable
from .flight import Flight
from .stage import Outcome, Verdict
from .subject import Subject, undone

BELOW, ABOVE = 1e-2, 1e3
"""The sweep goes from this times the chosen learning rate to that."""
STEPS, FEWEST = 20, 6
SHARE = 0.85
"""Of the time that is left, for the sweep; what remains is for a second look at the chosen rate."""
TIMES = 3.0
"""Diverged is a loss of so many times that at the start. Less would not do: a detector's loss depends on which of its boxes
it is matched with, and doubles in healthy steps when there are few objects."""
LEAST_FOUND = 1e-3
"""A detector that finds less of an object than this at the start is taken to have found so much."""
NEAR = 3.0
"""A chosen rate within this factor of divergence is worth a warning."""
FAR = 15.0
"""Beyond this factor nobody looks again."""
AGAIN = 6
"""Steps at a constant rate, which say it more exactly than the sweep."""


RUINED = 10.0
"""A loss of so many times that at the start, at the chosen rate itself, is no doubt any more."""


def diverged(relative: float, times: float = TIMES) -> bool:
    """Judge a loss, given relative to that at the start.

    Examples:
        >>> diverged(1.5), diverged(4.0), diverged(math.nan)
        (False, True, True)
    """
    return not relative <= times


def rate(flight: Flight) -> Outcome:
    """Say at about which learning rate this model diverges on this data, against the chosen one."""
    subject = flight.subject
    if subject.optimizer is None:
        return Outcome(verdict=Verdict.SKIP, figure="no optimizer was given")
    groups = subject.optimizer.param_groups
    chosen = subject.lr if subject.lr is not None else max(float(group["lr"]) for group in groups)
    if chosen <= 0:
        return Outcome(verdict=Verdict.SKIP, figure="the learning rate is 0")
    whole = subject.size(subject.batch(0))
    each = flight.step_seconds / max(whole, 1)
    smallest = min(whole, 2) if subject.cut is not None else whole
    steps = STEPS if each <= 0 else min(STEPS, int(SHARE * flight.clock.left / (each * smallest)))
    if steps < FEWEST:
        return Outcome(
            verdict=Verdict.SKIP,
            figure=f"no time: {FEWEST} steps take about {FEWEST * each * smallest:.0f} s, {flight.clock.left:.0f} s are left"
            " (--seconds)",
        )
    size = whole if subject.cut is None else min(affordable(flight, SHARE, steps), 4 if whole >= 8 else whole)
    parts = _parts(flight, size)
    flight.before.rewind()  # the step with the chosen rate may already have done the harm
    factors = [BELOW * (ABOVE / BELOW) ** (i / (steps - 1)) for i in range(steps)]
    points = _sweep(flight, parts, [chosen * f for f in factors], chosen)
    last, relative = points[-1]
    where = last if diverged(relative) else None
    samples = f", {size} of {whole} samples" if size < whole else f", {size} samples" if size > 1 else ""
    how = f"{len(points)} steps{samples}"
    details: dict[str, Any] = {"chosen": chosen, "diverges": where, "trace": points, "samples": size}
    if where is None:
        return Outcome(figure=f"no divergence up to {last:.2g}; chosen {chosen:g} ({how})", details=details)
    where = _closer(flight, parts, chosen, where, details)
    ratio = where / chosen
    figure = f"diverges at about {where:.2g}; chosen {chosen:g}: {_apart(ratio)} ({how})"
    details["diverges"] = where
    if ratio > NEAR:
        return Outcome(figure=figure, details=details)
    fix = f"Lower lr0 to {where / 10:.1g} or less (with optimizer=auto, name optimizer= as well)."
    at_chosen = details.get("at chosen")
    if at_chosen and diverged(at_chosen[-1][1], RUINED):
        end = at_chosen[-1][1]
        grown = f"to {end:.3g} times its start" if math.isfinite(end) else f"to {end}"
        return Outcome(
            verdict=Verdict.FAIL,
            figure=figure,
            reason=f"at the chosen learning rate {chosen:g} the loss rises {grown} within {len(at_chosen)} steps; it diverges"
            f" from about {where:.2g} on",
            fix=fix,
            details=details,
        )
    return Outcome(
        verdict=Verdict.WARN,
        figure=figure,
        reason=f"the loss rises to several times its start from a learning rate of about {where:.2g} on; the chosen {chosen:g} is"
        f" {_apart(ratio)}",
        fix=fix,
        details=details,
    )


def _apart(ratio: float) -> str:
    """Say where the chosen rate is, given how many times as high divergence is.

    Examples:
        >>> _apart(48.2), _apart(1.0), _apart(0.25)
        ('48 times below', 'there already', '4 times above')
    """
    if 0.9 < ratio < 1.1:
        return "there already"
    times = ratio if ratio > 1 else 1 / ratio
    return f"{times:.{0 if times >= 4 else 1}f} times {'below' if ratio > 1 else 'above'}"


def _closer(flight: Flight, parts: list[Any], chosen: float, where: float, details: dict[str, Any]) -> float:
    """Look again with constant rates, from the start: the small ones of the sweep may have led to where it is flat.

    Returns:
        The least rate at which the loss has diverged.
    """
    if where > FAR * chosen or not flight.clock.left:
        return where
    for name, lr in (("above chosen", NEAR * chosen), ("at chosen", chosen)):
        points = details[name] = _sweep(flight, parts, [lr] * AGAIN, chosen, RUINED)
        if any(diverged(relative) for _, relative in points):
            where = min(where, lr)
        elif lr < where:
            break
    return where


def _parts(flight: Flight, size: int) -> list[Any]:
    """Return up to three parts of the first batch, which take turns."""
    batch, whole = flight.subject.batch(0), flight.subject.size(flight.subject.batch(0))
    starts = range(0, whole - size + 1, size) if size < whole else [0]
    return [flight.subject.part(batch, range(start, start + size)) for start in list(starts)[:3]]


def _whole_loss(subject: Subject, part: Any) -> float:
    """Return the loss at the start, as if all objects were found: one that begins to find them has more of it, not less skill."""
    with finding() as found:
        loss = float(subject.run(part)[0])
    return loss / max(float(found.share), LEAST_FOUND)


def _sweep(
    flight: Flight, parts: list[Any], lrs: list[float], chosen: float, times: float = TIMES
) -> list[tuple[float, float]]:
    """Train a step at each rate, until the loss is so many times that at the start; nothing of it stays.

    Returns:
        Rates, each with the loss behind its step relative to that at the start, which is the largest of the parts'.
    """
    subject = flight.subject
    assert subject.optimizer is not None
    points: list[tuple[float, float]] = []
    with undone(subject):
        with torch.no_grad():
            first = [_whole_loss(subject, part) for part in parts]
        start = max(max(map(abs, first)), 1e-12)
        guard = subject.guard()
        base = [float(group["lr"]) for group in subject.optimizer.param_groups]
        loss, items = subject.run(parts[0])
        for step, lr in enumerate(lrs):
            for group, own in zip(subject.optimizer.param_groups, base, strict=True):
                group["lr"] = own * lr / chosen
            if not (guard.backward(loss, items) and guard.step()):
                points.append((lr, math.nan))
                break
            part = (step + 1) % len(parts)
            loss, items = subject.run(parts[part])
            points.append((lr, 1.0 + (float(loss.detach()) - first[part]) / start))
            if diverged(points[-1][1], times) or (len(points) >= FEWEST and not flight.clock.left):
                break
    return points
