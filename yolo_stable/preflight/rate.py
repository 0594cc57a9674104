"""The stage of the learning rate: a short sweep, to see how far the chosen one is from where training falls apart."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from .flight import Flight
from .pace import affordable
from .stage import Outcome, Verdict
from .subject import undone

BELOW, ABOVE = 1e-2, 1e3
"""The sweep goes from this times the chosen learning rate to that."""
STEPS, FEWEST = 20, 8
SHARE = 0.7
"""Of the time that is left, for the sweep; what remains is for a second look at the chosen rate."""
RISE = 0.3
"""Diverged is a loss that has risen by this share of the first one above its smoothed minimum. A network with
normalisation layers that starts from nothing is never much worse than at its start, so a multiple would not be reached."""
NEAR = 3.0
"""A chosen rate within this factor of divergence is worth a warning."""
AGAIN = 6
"""Steps at the chosen rate itself before it is called too high."""


@dataclass
class Trace:
    """Losses of a sweep, each divided by the first one of the same samples."""

    points: list[tuple[float, float]] = field(default_factory=list)
    """Learning rate, relative loss."""
    smooth: float = 1.0
    lowest: float = 1.0

    def add(self, lr: float, relative: float) -> bool:
        """Note a step, and return whether the loss has left for good.

        Examples:
            >>> trace = Trace()
            >>> [trace.add(lr, loss) for lr, loss in ((0.1, 1.0), (1.0, 0.9), (10.0, 1.5))]
            [False, False, True]
        """
        self.points.append((lr, relative))
        if not math.isfinite(relative) or relative > self.lowest + RISE:
            return True
        self.smooth += 0.5 * (relative - self.smooth)
        self.lowest = min(self.lowest, self.smooth)
        return False


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
    factors = [BELOW * (ABOVE / BELOW) ** (i / (steps - 1)) for i in range(steps)]
    trace, where = _sweep(flight, parts, [chosen * f for f in factors], chosen)
    samples = f", {size} of {whole} samples" if size < whole else f", {size} samples" if size > 1 else ""
    how = f"{len(trace.points)} steps{samples}"
    details: dict[str, Any] = {"chosen": chosen, "diverges": where, "trace": trace.points, "samples": size}
    last = trace.points[-1][0]
    if where is None:
        return Outcome(figure=f"no divergence up to {last:.2g}; chosen {chosen:g} ({how})", details=details)
    ratio = where / chosen
    apart = f"{ratio:.2g} times below" if ratio >= 1 else f"{1 / ratio:.2g} times above"
    figure = f"diverges at about {where:.2g}; chosen {chosen:g}: {apart} ({how})"
    if ratio > NEAR:
        return Outcome(figure=figure, details=details)
    fix = f"Lower lr0 to {where / 10:.1g} or less (with optimizer=auto, name optimizer= as well)."
    if ratio <= 1:
        again, failed = _sweep(flight, parts, [chosen] * AGAIN, chosen)
        details["again"] = again.points
        if failed is not None:
            return Outcome(
                verdict=Verdict.FAIL,
                figure=figure,
                reason=f"the chosen learning rate {chosen:g} lets the loss rise by {_rise(again)} within"
                f" {len(again.points)} steps; it diverges from about {where:.2g} on",
                fix=fix,
                details=details,
            )
    return Outcome(
        verdict=Verdict.WARN,
        figure=figure,
        reason=f"the chosen learning rate {chosen:g} is close to where the loss diverges, about {where:.2g}",
        fix=fix,
        details=details,
    )


def _rise(trace: Trace) -> str:
    last = trace.points[-1][1]
    return f"{last - trace.lowest:.0%}" if math.isfinite(last) else f"to {last}"


def _parts(flight: Flight, size: int) -> list[Any]:
    """Return up to three parts of the first batch, which take turns."""
    batch, whole = flight.subject.batch(0), flight.subject.size(flight.subject.batch(0))
    starts = range(0, whole - size + 1, size) if size < whole else [0]
    return [flight.subject.part(batch, range(start, start + size)) for start in list(starts)[:3]]


def _sweep(flight: Flight, parts: list[Any], lrs: list[float], chosen: float) -> tuple[Trace, float | None]:
    """Train a step at each rate, until the loss leaves for good; nothing of it stays."""
    subject = flight.subject
    assert subject.optimizer is not None
    trace, first, pending = Trace(), {}, 0.0
    with undone(subject):
        guard = subject.guard()
        base = [float(group["lr"]) for group in subject.optimizer.param_groups]
        for step, lr in enumerate([*lrs, lrs[-1]]):  # the last one only looks at what the last step has done
            part = step % len(parts)
            loss, items = subject.run(parts[part])
            value = float(loss.detach())
            start = first.setdefault(part, value)
            relative = 1.0 + (value - start) / max(abs(start), 1e-12)
            if trace.add(pending, relative):
                return trace, pending
            pending = lr
            for group, own in zip(subject.optimizer.param_groups, base, strict=True):
                group["lr"] = own * lr / chosen
            if not guard.backward(loss, items):
                return trace, lr
            guard.step()
    return trace, None
