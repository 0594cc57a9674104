"""Scripted orders of the data: what an honest run's loss looks like when easy and hard batches do not come in turns at random."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

Step = tuple[float, float]


def _remembers(_state: int, _data: int) -> float:
    return 1.0


@dataclass(frozen=True, slots=True)
class Order:
    """What the data do to loss and norm."""

    at: Callable[[int], Step]
    """Factors of the batch of a step."""
    forgotten: Callable[[int, int], float] = _remembers
    """Factor of the loss of the second step's data under the state of the first step: a state may never have seen, or have
    forgotten, what they show. 1: it is as good at them as at anything."""
    silent: Callable[[int], float] = lambda _: 0.0
    """Share of the batches in which the state of a step finds no object, so that its loss is next to nothing there."""


def _epochs(rng: random.Random, shortest: int, longest: int) -> int:
    return int(math.exp(rng.uniform(math.log(shortest), math.log(longest))))


def blocks(rng: random.Random, _: int) -> Order:
    """Backgrounds, or one source, in one block and all else in the next, from the first step on; what is hard is forgotten."""
    easy, hard = _epochs(rng, 20, 1500), _epochs(rng, 20, 800)
    low, norm = math.exp(rng.uniform(math.log(0.003), math.log(0.2))), rng.uniform(0.03, 0.3)
    first_hard = rng.random() < 0.3
    period, most, slowly, soon = easy + hard, rng.choice((1.0, 2.0, 8.0)), rng.uniform(100, 600), rng.uniform(20, 200)

    def phase(i: int) -> int:
        return (i + (easy if first_hard else 0)) % period

    def forgotten(state: int, data: int) -> float:
        if phase(data) < easy:
            return 1.0
        p = phase(state)
        at_the_end = 1 + (most - 1) * (1 - math.exp(-easy / slowly))
        if p < easy:
            return 1 + (most - 1) * (1 - math.exp(-p / slowly))
        return 1 + (at_the_end - 1) * math.exp(-(p - easy) / soon)

    return Order(lambda i: (low, norm) if phase(i) < easy else (1.0, 1.0), forgotten)


def sorted_list(rng: random.Random, _: int) -> Order:
    """From the easiest to the hardest in each epoch, or the other way round."""
    epoch, low, norm = (
        _epochs(rng, 60, 3000),
        math.exp(rng.uniform(math.log(0.003), math.log(0.2))),
        rng.uniform(0.03, 0.5),
    )
    down = rng.random() < 0.4

    def at(i: int) -> Step:
        way = i % epoch / epoch
        easy = way if down else 1 - way
        return low**easy, norm**easy

    return Order(at)


def buckets(rng: random.Random, _: int) -> Order:
    """As ``rect=True``: blocks of one shape each, the same in each epoch."""
    sizes = [(_epochs(rng, 5, 200), math.exp(rng.uniform(math.log(0.02), 0.0))) for _ in range(rng.randint(2, 12))]
    place = [factor for size, factor in sizes for _ in range(size)]
    return Order(lambda i: (place[i % len(place)], math.sqrt(place[i % len(place)])))


def curriculum(rng: random.Random, steps: int) -> Order:
    """Stages, each harder than the one before; no state knows a stage that it has not seen."""
    stages, low = rng.randint(2, 6), math.exp(rng.uniform(math.log(0.005), math.log(0.1)))
    most, soon = rng.uniform(1, 4), rng.uniform(20, 300)

    def stage(i: int) -> int:
        return min(stages - 1, i * stages // steps)

    def forgotten(state: int, data: int) -> float:
        begun = -(-stage(data) * steps // stages)
        return 1 + (most - 1) * (1.0 if state < begun else math.exp(-(state - begun) / soon))

    return Order(lambda i: (low ** (1 - stage(i) / (stages - 1)), 1.0), forgotten)


def only_backgrounds(rng: random.Random, steps: int) -> Order:
    """Nothing but backgrounds for epochs, twice; then few objects are found at first, and the loss is low where none is."""
    begin = 0 if rng.random() < 0.5 else int(rng.uniform(0.1, 0.4) * steps)
    long = int(rng.uniform(0.05, 0.3) * steps) + 20
    again = begin + 2 * long
    low, most = math.exp(rng.uniform(math.log(1e-4), math.log(0.05))), rng.uniform(1, 10)
    share, soon = rng.uniform(0.0, 0.5), rng.uniform(20, 300)

    def since(i: int) -> float:
        """Return for how long objects have been seen again, -1 within the backgrounds, and far more than ever before them."""
        for start in (again, begin):
            if i >= start:
                return i - start - long if i >= start + long else -1
        return 1e9

    def lost(i: int) -> float:
        return 1.0 if since(i) < 0 else math.exp(-since(i) / soon)

    def forgotten(state: int, data: int) -> float:
        return 1.0 if since(data) < 0 else 1 + (most - 1) * lost(state)

    return Order(lambda i: (low, 0.1) if since(i) < 0 else (1.0, 1.0), forgotten, lambda i: share * lost(i))


ORDERS: dict[str, Callable[[random.Random, int], Order]] = {
    "blocks": blocks,
    "sorted": sorted_list,
    "rect buckets": buckets,
    "curriculum": curriculum,
    "backgrounds only, for epochs": only_backgrounds,
}
