"""Catalogue: named faults of the loop and its state, for tests and benchmarks that try them all."""

from __future__ import annotations

from collections.abc import Callable

from .armed import INF, NAN
from .fault import STATE_PLACES, Fault

Schedule = Callable[[int, int], Fault]
"""Makes a fault for a run of some epochs of some batches."""

_VALUES = {"nan": NAN, "inf": INF, "1e30": 1e30}
_STATE_NAMES = ("a weight", "the momentum", "exp_avg_sq", "the EMA", "running_var")


def _first(place: str, value: float) -> Schedule:
    return lambda epochs, batches: Fault(place, value, at=(0,))


def _middle_of_run(place: str, value: float) -> Schedule:
    return lambda epochs, batches: Fault(place, value, at=(batches + batches // 4,))


def _last(place: str, value: float) -> Schedule:
    return lambda epochs, batches: Fault(place, value, at=(epochs * batches - 1,))


def _every_epoch(place: str, value: float) -> Schedule:
    return lambda epochs, batches: Fault(place, value, at=tuple(e * batches + batches // 5 for e in range(epochs)))


def _from_epoch(place: str, value: float, epoch: int) -> Schedule:
    return lambda epochs, batches: Fault(place, value, since=(epoch - 1) * batches)


CATALOGUE: dict[str, Schedule] = {
    "nan pixel, first batch of the first epoch": _first("pixel", NAN),
    "nan pixel, in the middle": _middle_of_run("pixel", NAN),
    "nan pixel, last batch": _last("pixel", NAN),
    "nan pixel, in every epoch": _every_epoch("pixel", NAN),
    "inf pixel": _middle_of_run("pixel", INF),
    "huge pixel": _middle_of_run("pixel", 1e20),
    "nan loss, first batch of the first epoch": _first("loss", NAN),
    "nan loss, in the middle": _middle_of_run("loss", NAN),
    "nan loss, last batch of an epoch": lambda epochs, batches: Fault("loss", NAN, at=(batches - 1,)),
    "nan loss, last batch": _last("loss", NAN),
    "inf loss, in every epoch": _every_epoch("loss", INF),
    "nan gradient": _middle_of_run("gradient", NAN),
    "inf gradient": _middle_of_run("gradient", INF),
    "-inf gradient, first step": _first("gradient", -INF),
    "1e18 gradient": _middle_of_run("gradient", 1e18),
    "1e25 gradient": _middle_of_run("gradient", 1e25),
    "class out of range": _middle_of_run("label", 99),
    **{
        f"{shown} in {where}": _middle_of_run(place, value)
        for place, where in zip(STATE_PLACES, _STATE_NAMES, strict=True)
        for shown, value in _VALUES.items()
    },
    # Stock can repeat a later epoch from last.pt; in the first one there is none.
    "nan in a weight, in the first epoch": lambda epochs, batches: Fault("weight", NAN, at=(batches // 4,)),
    "lr 100 times too high from the first step": _from_epoch("lr", 100.0, epoch=1),
    "lr 100 times too high from epoch 3": _from_epoch("lr", 100.0, epoch=3),
    "overflow in every step from epoch 2": _from_epoch("overflow", INF, epoch=2),
}
"""The named faults; ``CATALOGUE[name](epochs, batches)`` is the :class:`Fault` for a run of that size (epochs from 1)."""

OF_MAPS: dict[str, Schedule] = {
    "nan in a depth map": _middle_of_run("depth", NAN),
    "inf in a depth map": _middle_of_run("depth", INF),
    "class out of range in a mask": _middle_of_run("mask", 99),
}
"""Named faults of the tasks with a label for each pixel, depth and semantic segmentation."""


def _passing() -> dict[str, tuple[str, float]]:
    made = {name: schedule(3, 16) for name, schedule in CATALOGUE.items()}
    found: dict[tuple[str, str], str] = {}
    for name, fault in made.items():
        if fault.place != "lr":
            found.setdefault((fault.place, repr(fault.value)), name)  # NaN is not equal to itself
    return {name: (made[name].place, made[name].value) for name in found.values()}


PASSING = _passing()
"""What can go wrong in a single batch: each pair of place and value of the catalogue once, under the first name. A learning rate
that is too high is not among them: there training itself goes wrong."""
