"""Time budget: how many samples of a batch there is time for."""

from __future__ import annotations

import time

from .flight import Flight
from .subject import undone

PROBE = 2
"""Samples that are timed, twice: the first time pays for what is only done once."""
SHARE = 0.2
"""Of the time that is left, for the one whole step; the sweep of the learning rate gets most of the rest."""


def keep_pace(flight: Flight) -> None:
    """On the CPU, take as many samples of each batch as there is time for; elsewhere the whole batch, for its memory.

    What a model raises here it raises again in the stage that tells of it.
    """
    subject = flight.subject
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
    subject.most = max(2 * PROBE, int(SHARE * flight.clock.left / (seconds / PROBE)))


def affordable(flight: Flight, share: float, times: int) -> int:
    """Return how many samples can be trained so many times in a share of the time that is left, at least 2."""
    size = flight.subject.size(flight.subject.batch(0))
    each = flight.step_seconds / max(size, 1)
    if each <= 0:
        return size
    return min(size, max(2, int(share * flight.clock.left / (times * each))))
