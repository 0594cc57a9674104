"""Faults as data: what is put where, and at which batches of a training run.

A :class:`Fault` is put into a trainer from outside, with a subclass that it makes of the trainer's class; no trainer knows
of this module, and it knows Ultralytics' loop by the names of two methods and two attributes only. It works on stock
trainers, on guarded ones, and on any class with ``preprocess_batch``, ``optimizer_step``, ``model`` and ``optimizer``.

The places:

- in the data: ``pixel`` (after ``preprocess_batch``, so in the normalised image) and ``label`` (a class, before it);
- in one pass: ``loss`` (the sum and its first item are multiplied) and ``gradient`` (of the first parameter that has one);
- in the state between two steps: ``weight`` (of the convolution in the middle), ``momentum`` and ``exp_avg_sq`` (the
  optimizer's state of that weight), ``ema`` (that weight in the average) and ``running_var`` (of the BatchNorm in the middle);
- in the step: ``lr`` (the learning rate of the step is multiplied) and ``overflow`` (every gradient of the window).

One element is written, the one in the middle of its tensor, except by ``loss``, ``lr`` and ``overflow``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from .errors import InvalidCallError, nearest

NAN, INF = math.nan, math.inf
STATE_PLACES = ("weight", "momentum", "exp_avg_sq", "ema", "running_var")
PLACES = ("pixel", "label", "loss", "gradient", *STATE_PLACES, "lr", "overflow")
MOMENTUM_KEYS = ("momentum_buffer", "exp_avg")
"""What optimizers call their first moment: SGD and MuSGD, the Adam family."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, where and when. It never changes; what happened is counted by :class:`Armed`.

    Args:
        place: One of ``PLACES``.
        value: What is written: NaN, an infinity or any number; for ``loss`` and ``lr`` a factor.
        at: Batches of the whole run at which it fires, from 0, each once. The batches of an epoch that is done again count on.
        since: Every batch from this one on as well, from 0; None: only those of ``at``.

    Raises:
        InvalidCallError: An unknown place, a negative batch, or no batch at all.

    Examples:
        >>> Fault("weight", float("inf"), at=(20,)).optimizer, Fault("exp_avg_sq", 1e30, since=0).optimizer
        (None, 'AdamW')
    """

    place: str
    value: float
    at: tuple[int, ...] = ()
    since: int | None = None

    def __post_init__(self) -> None:
        if self.place not in PLACES:
            raise InvalidCallError(
                f"There is no place {self.place!r} for a fault: {', '.join(PLACES)}.{nearest(self.place, PLACES)}"
            )
        if not (self.at or self.since is not None) or min((*self.at, self.since or 0)) < 0:
            raise InvalidCallError(f"A fault needs batches, counted from 0: at={self.at}, since={self.since}.")

    @property
    def optimizer(self) -> str | None:
        """The optimizer that has such a place, as Ultralytics' ``optimizer=``; None: any with momentum."""
        return "AdamW" if self.place == "exp_avg_sq" else None

    def on(self, base: type) -> Any:
        """Return a subclass of a trainer's class with this fault in it, armed once: for one run.

        A fault that finds no place waits for the next batch that has one: ``momentum`` and ``exp_avg_sq`` at the first
        batches, when no step has been taken yet; ``label`` when there are no labels; ``gradient`` in the middle of a window.

        Args:
            base: The class; it keeps all that it does.

        Returns:
            The subclass; its attribute ``chaos`` is the :class:`Armed` fault.
        """
        return _with_fault(base, Armed(self))


class Armed:
    """A fault in one run: which batch the run is at, and how often the fault has fired."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.batches = 0
        """Batches begun."""
        self.fired = 0
        self.due = 0
        """How often it still has to fire for the batches begun so far."""

    def begin_batch(self) -> None:
        """Count a batch, and know whether it is one of the fault's."""
        if self.fault.since is not None and self.batches >= self.fault.since:
            self.due = max(self.due, 1)  # a place that comes once in a window is not owed one for each micro-batch
        elif self.batches in self.fault.at:
            self.due += 1
        self.batches += 1

    def is_due(self, *places: str) -> bool:
        """Tell whether the fault belongs to one of these places and has to fire."""
        return self.due > 0 and self.fault.place in places

    def fire(self, *targets: Tensor | None) -> None:
        """Write the value into tensors, or wait when there are none.

        Written through ``data``, which leaves the tensors' version counters as they are: a memory that flips tells nobody.
        """
        found = [target for target in targets if target is not None]
        for target in found:
            target.data.fill_(self.fault.value)
        if found:
            self.done()

    def done(self) -> None:
        """Count that it has fired."""
        self.fired += 1
        self.due -= 1


class _Spoilt:
    """An attribute of a trainer that a due fault changes on the way in, once."""

    def __init__(self, name: str, armed: Armed, change: Callable[[Any, float], Any], *, last: bool) -> None:
        self.name, self.armed, self.change, self.last = name, armed, change, last
        self.fired = 0

    def __get__(self, trainer: Any, owner: type | None = None) -> Any:
        try:
            return self if trainer is None else vars(trainer)[self.name]
        except KeyError:
            raise AttributeError(self.name) from None

    def __set__(self, trainer: Any, value: Any) -> None:
        # The loop may set it again in the same batch, as a guard does that puts the last healthy loss in its place.
        if value is not None and self.armed.is_due("loss") and self.fired == self.armed.fired:
            value = self.change(value, self.armed.fault.value)
            self.fired += 1
            if self.last:
                self.armed.done()
        vars(trainer)[self.name] = value


def _spoil_items(items: dict[str, Any], factor: float) -> dict[str, Any]:
    first = next(iter(items))
    return {**items, first: items[first] * factor}


def _with_fault(base: Any, armed: Armed) -> Any:
    class Faulty(base):
        chaos = armed

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            armed.begin_batch()
            if armed.is_due("label"):
                batch = {**batch, "cls": batch["cls"].clone()}  # the loader may serve its own again
                armed.fire(_middle(batch["cls"]))
            if armed.is_due(*STATE_PLACES):
                armed.fire(_state_element(self, armed.fault.place))
            batch = super().preprocess_batch(batch)
            if armed.is_due("pixel"):
                armed.fire(_middle(batch["img"]))
            return batch

        def optimizer_step(self) -> None:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            if armed.is_due("gradient"):
                armed.fire(*map(_middle, gradients[:1]))
            if armed.is_due("overflow"):
                armed.fire(*gradients)
            if armed.is_due("lr"):
                with _learning_rate_times(self.optimizer, armed.fault.value):
                    armed.done()
                    super().optimizer_step()
            else:
                super().optimizer_step()

    if armed.fault.place == "loss":  # the loop sets the items first
        Faulty.loss_items = _Spoilt("loss_items", armed, _spoil_items, last=False)
        Faulty.loss = _Spoilt("loss", armed, lambda loss, factor: loss * factor, last=True)
    Faulty.__name__ = Faulty.__qualname__ = f"{base.__name__}With{armed.fault.place.title().replace('_', '')}Fault"
    return Faulty


@contextmanager
def _learning_rate_times(optimizer: Any, factor: float) -> Iterator[None]:
    """Multiply what the loop has set, so that it acts in the warm-up as well, and put it back for what the loop does next.

    A rate that the step itself has changed, such as one that came back with an older state, is left as it is.
    """
    before = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = group["lr"] * factor
    try:
        yield
    finally:
        for group, rate in zip(optimizer.param_groups, before, strict=True):
            if group["lr"] == rate * factor:
                group["lr"] = rate


def _middle(tensor: Tensor) -> Tensor | None:
    """Return a view of the element in the middle, whatever the memory layout; None of an empty tensor."""
    return tensor.data[tuple(n // 2 for n in tensor.shape)] if tensor.numel() else None


def _state_element(trainer: Any, place: str) -> Tensor | None:
    """Return the element of the state that a fault is written to, or None when that state is not there yet."""
    if place == "running_var":
        norms = [m for m in trainer.model.modules() if isinstance(getattr(m, "running_var", None), Tensor)]
        return _middle(norms[len(norms) // 2].running_var) if norms else None
    parameters = list(trainer.model.parameters())
    kernels = [i for i, p in enumerate(parameters) if p.ndim == 4 and p.requires_grad]
    index = kernels[len(kernels) // 2]
    if place == "weight":
        return _middle(parameters[index])
    if place == "ema":  # by its number: names differ where the model is wrapped
        return _middle(list(trainer.ema.ema.parameters())[index]) if trainer.ema else None
    return _optimizer_element(trainer.optimizer, parameters[index], place)


def _optimizer_element(optimizer: Any, weight: nn.Parameter, place: str) -> Tensor | None:
    state = optimizer.state.get(weight)  # asked with [], the state would be made
    if not state:
        return None
    keys = MOMENTUM_KEYS if place == "momentum" else (place,)
    found = [state[key] for key in keys if isinstance(state.get(key), Tensor)]
    if not found:
        raise InvalidCallError(f"{type(optimizer).__name__} keeps no {place}: a fault cannot be put there.")
    return _middle(found[0])


Schedule = Callable[[int, int], Fault]
"""Makes a fault for a run of so many epochs of so many batches."""

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
    # Stock can do a later epoch again from last.pt; in the first one there is none.
    "nan in a weight, in the first epoch": lambda epochs, batches: Fault("weight", NAN, at=(batches // 4,)),
    "lr 100 times too high from the first step": _from_epoch("lr", 100.0, epoch=1),
    "lr 100 times too high from epoch 3": _from_epoch("lr", 100.0, epoch=3),
    "overflow in every step from epoch 2": _from_epoch("overflow", INF, epoch=2),
}
"""The named faults; ``CATALOGUE[name](epochs, batches)`` is the :class:`Fault` for a run of that size (epochs from 1)."""
