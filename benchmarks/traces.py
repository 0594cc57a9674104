"""Scripted losses and gradient norms, one pair per optimizer step: of healthy YOLO runs, and of runs that diverge.

Scripts, not recordings: each draws its own noise, lengths and factors from a seed, and the ranges are wider than what one
data set shows. The same name, seed and length give the same trace everywhere.

Each number is what the state of the model is, times what the data are, times noise; so it is known as well what another state
would have had on the same data.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator

from .orders import ORDERS, Order, Step

Factors = Callable[[int], Step]
"""What a step's loss and norm are multiplied by."""


def _base(rng: random.Random, steps: int, start: float, end: float) -> Factors:
    """Return a loss that falls to a plateau, exponentially or as a power, and a norm that warms up and then falls slowly."""
    pace = rng.uniform(2.0, 8.0) / steps
    power = rng.random() < 0.5
    half = rng.uniform(0.002, 0.05) * steps + 1
    warm_up = min(steps // 4, int(math.exp(rng.uniform(math.log(5), math.log(3000)))))
    bump = rng.uniform(0.0, 0.5)
    low = math.exp(-rng.uniform(0.0, math.log(100)))
    norm = math.exp(rng.uniform(math.log(0.5), math.log(50)))

    def at(i: int) -> Step:
        fallen = 1 / (1 + i / half) if power else math.exp(-pace * i)
        warm = min(1.0, (i + 1) / warm_up)
        loss = (end + (start - end) * fallen) * (1 + bump * math.sin(math.pi * warm))
        loss *= 1 - 0.1 * i / steps  # the learning rate runs out
        return loss, norm * low ** (1 - warm) * (1 - 0.5 * i / steps)

    return at


def _ones(_: int) -> Step:
    return 1.0, 1.0


def _mosaic_closes(rng: random.Random, steps: int) -> Factors:
    at, loss, norm = int(rng.uniform(0.5, 0.95) * steps), rng.uniform(0.6, 1.3), math.exp(rng.uniform(-0.69, 1.1))
    return lambda i: (loss, norm) if i >= at else (1.0, 1.0)


def _multi_scale(rng: random.Random, _: int) -> Factors:
    most = rng.uniform(1.5, 2.0)

    def at(_: int) -> Step:
        size = most ** rng.random()
        return size, size

    return at


def _alternates(rng: random.Random, _: int) -> Factors:
    most, period = rng.uniform(1.5, 2.0), rng.choice((1, 10, 40, 200))
    return lambda i: (most, most) if i // period % 2 else (1.0, 1.0)


def _last_batch_short(rng: random.Random, _: int) -> Factors:
    epoch, loss, norm = rng.randint(2, 20), rng.uniform(0.2, 3.0), rng.uniform(0.3, 5.0)
    return lambda i: (loss, norm) if i % epoch == epoch - 1 else (1.0, 1.0)


def _backgrounds(rng: random.Random, _: int) -> Factors:
    share, loss = rng.uniform(0.05, 0.5), rng.uniform(0.01, 0.2)
    return lambda _: (loss, 0.1) if rng.random() < share else (1.0, 1.0)


def _no_objects_at_first(rng: random.Random, steps: int) -> Factors:
    """As recorded from YOLO11n from scratch: losses of 8 and 120 take turns until the assigner finds objects in each batch."""
    share, last, loss = rng.uniform(0.1, 0.5), rng.uniform(10, min(300, steps / 4)), rng.uniform(0.06, 0.4)
    return lambda i: (loss, rng.uniform(0.1, 1.0)) if rng.random() < share * (1 - i / last) else (1.0, 1.0)


def _drifts(rng: random.Random, _: int) -> Factors:
    """Noise that is not independent from step to step, as when a data set is not well shuffled."""
    keep, sigma = 1 - 1 / math.exp(rng.uniform(math.log(10), math.log(300))), rng.uniform(0.1, 0.3)
    drift = 0.0

    def at(_: int) -> Step:
        nonlocal drift
        drift = keep * drift + math.sqrt(1 - keep * keep) * rng.gauss(0, sigma)
        return math.exp(drift), math.exp(2 * drift)

    return at


CLEAN: dict[str, tuple[tuple[float, float], tuple[float, float], Callable[[random.Random, int], Factors]]] = {
    "from scratch": ((10.0, 20.0), (1.5, 3.0), lambda *_: _ones),
    "no objects at first": ((10.0, 20.0), (3.0, 8.0), _no_objects_at_first),
    "fine-tune": ((1.5, 3.0), (1.0, 2.0), lambda *_: _ones),
    "mosaic closes": ((10.0, 20.0), (1.5, 3.0), _mosaic_closes),
    "multi-scale": ((5.0, 15.0), (1.5, 3.0), _multi_scale),
    "two sizes in turns": ((5.0, 15.0), (1.5, 3.0), _alternates),
    "tiny data set": ((5.0, 15.0), (0.3, 3.0), _last_batch_short),
    "background windows": ((5.0, 15.0), (1.0, 3.0), _backgrounds),
    "drifting": ((5.0, 15.0), (1.5, 3.0), _drifts),
    "memorised": ((2.0, 7.0), (0.001, 0.01), _drifts),
    **{name: ((5.0, 20.0), (1.0, 4.0), lambda *_: _ones) for name in ORDERS},
}
"""Kinds of healthy runs: loss at the start, loss on the plateau, and what is special."""


class Trace:
    """One run: an iterator over its steps, that also knows what an older state has on the data of the newest one.

    Args:
        kind: One of `CLEAN`.
        seed: Any integer.
        steps: Length of the run, at least 100.
        more: Factors by which the model is worse in each step.
    """

    def __init__(self, kind: str, seed: int, steps: int, more: Factors | None = None) -> None:
        rng = random.Random(f"{kind} {seed}")
        self._other = random.Random(f"{kind} {seed} under another state")  # so that asking changes no step
        starts, ends, special = CLEAN[kind]
        self._base = _base(rng, steps, rng.uniform(*starts), rng.uniform(*ends))
        self._more = more or _ones
        self._order = ORDERS[kind](rng, steps) if kind in ORDERS else Order(special(rng, steps))
        self._silent_share = rng.uniform(0.1, 0.5) if kind == "no objects at first" else 0.0
        self._noise = rng
        self._steps = steps
        self._at = 0
        self._data: Step = (1.0, 1.0)

    def __iter__(self) -> Iterator[Step]:
        """Yield loss and norm of each step."""
        rng = self._noise
        loss_sigma, norm_sigma = rng.uniform(0.15, 0.4), rng.uniform(0.5, 1.0)
        tail, spikes = rng.choice((0.0, 0.02)), rng.uniform(0.0, 0.01)
        for i in range(self._steps):
            loss, norm = self._order.at(i)
            loss *= math.exp(rng.gauss(0, loss_sigma))
            norm *= math.exp(rng.gauss(0, norm_sigma))
            if rng.random() < tail:
                loss *= math.exp(rng.expovariate(1.5))
            if rng.random() < spikes:
                norm *= 30.0
            self._at, self._data = i, (loss, norm)
            yield self.under(i, exactly=True)

    def under(self, state: int, *, exactly: bool = False) -> Step:
        """Return loss and norm of the newest step's data under the state of another step.

        Args:
            state: 0 is before the first step.
            exactly: Without noise and silence: as the run itself saw them.
        """
        (loss, norm), (more_loss, more_norm), (data_loss, data_norm) = self._base(state), self._more(state), self._data
        loss *= data_loss * self._order.forgotten(state, self._at)
        norm *= data_norm
        if not exactly:
            loss *= math.exp(self._other.gauss(0, 0.15))
            norm *= math.exp(self._other.gauss(0, 0.4))
            if self._other.random() < max(self._order.silent(state), self._silent_share * (state < 300)):
                loss *= 0.03
        return min(loss * more_loss, 1e8), min(norm * more_norm, 1e8)


def _wave(k: int, period: int, low: float, high: float) -> float:
    return low * (high / low) ** (0.5 - 0.5 * math.cos(2 * math.pi * k / period))


DIVERGING: dict[str, Factors] = {
    "loss x5 and stays": lambda _: (5.0, 1.0),
    "loss x10 and stays": lambda _: (10.0, 1.0),
    "loss x100 and stays": lambda _: (100.0, 1.0),
    "norm x100 and stays": lambda _: (1.0, 100.0),
    "norm x1000 and stays": lambda _: (1.0, 1000.0),
    "loss x2 per 200 steps": lambda k: (2 ** (k / 200), 1.0),
    "loss x2 per 1000 steps": lambda k: (2 ** (k / 1000), 1.0),
    "loss x8 to x80 in waves of 20": lambda k: (_wave(k, 20, 8, 80), 1.0),
    "loss x1 to x80 in waves of 20": lambda k: (_wave(k, 20, 1, 80), 1.0),
}
"""What the loss and the norm of a healthy run are multiplied by, k steps after it begins to diverge."""
EXPLODING = "explodes in the 4th step"


def diverging(kind: str, seed: int, begin: int, steps: int, healthy: str) -> Trace:
    """Return a run that begins to diverge after ``begin`` steps.

    Args:
        kind: One of `DIVERGING`, or `EXPLODING`, for which ``begin`` is 3.
        seed: Any integer.
        begin: Healthy steps.
        steps: Length in all.
        healthy: One of `CLEAN`: the run that begins to diverge; an explosion is always one of a fine-tune.
    """
    if kind == EXPLODING:
        return Trace("fine-tune", seed, steps, _explosion(random.Random(f"{EXPLODING} {seed}")))
    return Trace(healthy, seed, steps, lambda i: DIVERGING[kind](i - begin) if i >= begin else (1.0, 1.0))


def _explosion(rng: random.Random) -> Factors:
    """Return 1 three times, then 40, 160 and so on up to where it stays, as with a learning rate 100 times too high."""
    growth, most = rng.uniform(1.0, 4.0), 10 ** rng.uniform(2, 7)

    def at(i: int) -> Step:
        factor = 1.0 if i < 3 else min(most, 40.0 * growth ** min(i - 3, 50))
        return factor, factor

    return at
