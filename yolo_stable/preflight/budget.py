"""Time budget: how many samples of a batch fit into the time."""

from __future__ import annotations

import time

from .stage_runner import StageContext
from .subject import undone

PROBE = 2
"""Samples that are timed, twice: the first pass pays for what happens only once."""
SHARE = 0.2
"""Of the time that is left, for the one whole step; the sweep of the learning rate gets most of the rest."""


def fit_to_time(context: StageContext) -> None:
    """On the CPU, cut each batch to the samples that fit into the time; elsewhere keep it whole, for its memory.

    What a model raises here it raises again in the stage that reports it.
    """
    subject = context.subject
    if subject.device.type != "cpu" or subject.cut is None or subject.size(subject.batch(0)) <= 2 * PROBE:
        return
    few = subject.part(subject.batch(0), range(PROBE))
    seconds = 0.0
    with undone(subject):
        for _ in range(2):
            began = time.perf_counter()
            try:
                loss, _ = subject.run(few)
                loss.backward()
            except Exception:  # noqa: BLE001 - the stages run it again, and tell
                return
            seconds = time.perf_counter() - began
    subject.most = max(2 * PROBE, int(SHARE * context.clock.left / (seconds / PROBE)))


def affordable(context: StageContext, share: float, times: int) -> int:
    """Return how many samples can be trained ``times`` times in a share of the time left, at least 2."""
    size = context.subject.size(context.subject.batch(0))
    each = context.step_seconds / max(size, 1)
    if each <= 0:
        return size
    return min(size, max(2, int(share * context.clock.left / (times * each))))
