"""Loop fault: a value in the loop or in the state between two steps, at certain batches.

The places:

- in the data: ``pixel`` (after ``preprocess_batch``, in the normalised image) and ``label`` (a class, before it); where each
  pixel has a label, ``depth`` and ``mask`` (a class of a semantic mask), before it;
- in one pass: ``loss`` (the sum and its first item are multiplied) and ``gradient`` (of the first parameter that has one);
- in the state between two steps: ``weight`` (of the convolution in the middle), ``momentum`` and ``exp_avg_sq`` (the
  optimizer's state of that weight), ``ema`` (that weight in the average) and ``running_var`` (of the BatchNorm in the middle);
- in the step: ``lr`` (the learning rate of the step is multiplied) and ``overflow`` (every gradient of the window).

All but ``loss``, ``lr`` and ``overflow`` write one element, in the middle of its tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidCallError, nearest
from .armed import Armed, Truth, require_batches
from .loop import named
from .modules import find, middle_index

STATE_PLACES = ("weight", "momentum", "exp_avg_sq", "ema", "running_var")
PLACES = ("pixel", "label", "loss", "gradient", *STATE_PLACES, "lr", "overflow")
IN_MAPS = {"depth": "depth", "mask": "semantic_mask"}
"""The places of tasks with a label for each pixel, and their tensors."""
MOMENTUM_KEYS = ("momentum_buffer", "exp_avg")
"""Names of the first moment: in SGD and MuSGD, in the Adam family."""
ON_MODULES = {"weight": "weight", "running_var": "running_var"}
"""The places within a module, and their tensors."""
PHASES = {
    "pixel": "data",
    "label": "data",
    "depth": "data",
    "mask": "data",
    "loss": "loss",
    "gradient": "backward",
    "overflow": "backward",
    "lr": "step",
}
CAUSES = {
    "pixel": "data",
    "label": "data",
    "depth": "data",
    "mask": "data",
    "weight": "weights",
    "running_var": "weights",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: what, where and when. :class:`Armed` counts what happened.

    Args:
        place: One of ``PLACES`` or ``IN_MAPS``.
        value: What to write: NaN, an infinity or any number; for ``loss`` and ``lr`` a factor.
        at: Batches of the whole run at which it fires, from 0, each once; those of a repeated epoch count on.
        since: Also every batch from this one on, from 0; None: only those of ``at``.
        module: Of ``weight`` and ``running_var``; empty: the one in the middle.

    Raises:
        InvalidCallError: An unknown place, a negative batch, no batch, or a module for a place that has none.

    Examples:
        >>> Fault("weight", float("inf"), at=(20,)).optimizer, Fault("exp_avg_sq", 1e30, since=0).optimizer
        (None, 'AdamW')
    """

    place: str
    value: float
    at: tuple[int, ...] = ()
    since: int | None = None
    module: str = ""

    def __post_init__(self) -> None:
        places = (*PLACES, *IN_MAPS)
        if self.place not in places:
            raise InvalidCallError(
                f"There is no place {self.place!r} for a fault: {', '.join(places)}.{nearest(self.place, places)}"
            )
        require_batches(self.at, self.since)
        if self.module and self.place not in ON_MODULES:
            raise InvalidCallError(f"The place {self.place!r} is not in a module: module={self.module!r}.")

    @property
    def truth(self) -> Truth:
        """The phase, and the named module."""
        return Truth(PHASES.get(self.place, "state"), self.module, "", "", CAUSES.get(self.place, ""))

    @property
    def optimizer(self) -> str | None:
        """The ``optimizer=`` that has such a place; None: any with momentum."""
        return "AdamW" if self.place == "exp_avg_sq" else None

    def on(self, base: type) -> Any:
        """Return a subclass of a trainer's class with this fault in it, for one run; ``chaos`` is the :class:`Armed` fault.

        A fault without its place waits for the next batch that has one: ``momentum`` and ``exp_avg_sq`` before the first step,
        ``label`` without labels, ``depth`` and ``mask`` in another task, ``gradient`` in the middle of a window.
        """
        return _with_fault(base, Armed(self))

    def find_in(self, model: nn.Module) -> None:
        """Check that a network has this place.

        Raises:
            InvalidCallError: There is no such module, or it has no such tensor.
        """
        if self.module:
            _module_element(model, self.module, self.place)

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[Armed]:
        """Write the value into a network for a time; afterwards the element is restored bit for bit.

        Raises:
            InvalidCallError: It is not ``weight`` or ``running_var`` of a named module, or that has no such tensor.
        """
        if not self.module:
            raise InvalidCallError(
                f"Only {' and '.join(ON_MODULES)} of a named module can be installed in a bare network."
            )
        armed = Armed(self)
        element = _module_element(model, self.module, self.place)
        before = element.clone()
        armed.due = 1
        armed.fire(element)
        try:
            yield armed
        finally:
            element.copy_(before)


class _Spoilt:
    """An attribute of a trainer that a due fault changes once when it is set."""

    def __init__(
        self, name: str, armed: Armed, change: Callable[[Any, float], Any], inner: _Spoilt | None, *, last: bool
    ) -> None:
        self.name, self.armed, self.change, self.inner, self.last = name, armed, change, inner, last
        self.fired = 0

    def __get__(self, trainer: Any, owner: type | None = None) -> Any:
        try:
            return self if trainer is None else vars(trainer)[self.name]
        except KeyError:
            raise AttributeError(self.name) from None

    def __set__(self, trainer: Any, value: Any) -> None:
        # The loop may set it again in the same batch, as a guard does to restore the last healthy loss.
        if value is not None and self.armed.is_due("loss") and self.fired == self.armed.fired:
            value = self.change(value, self.armed.fault.value)
            self.fired += 1
            if self.last:
                self.armed.done()
        if self.inner is not None:  # the one of another fault, which this one hides
            self.inner.__set__(trainer, value)
        else:
            vars(trainer)[self.name] = value


def _spoil_items(items: dict[str, Any], factor: float) -> dict[str, Any]:
    first = next(iter(items))
    return {**items, first: items[first] * factor}


def _with_fault(base: Any, armed: Armed) -> Any:
    class Faulty(base):
        chaos = armed

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            armed.begin_batch()
            if armed.is_due("label") and "cls" in batch:
                batch = {**batch, "cls": batch["cls"].clone()}  # the loader may reuse its own
                armed.fire(_middle(batch["cls"]))
            if armed.is_due(*IN_MAPS) and isinstance(batch.get(key := IN_MAPS[armed.fault.place]), Tensor):
                batch = {**batch, key: batch[key].clone()}
                armed.fire(_middle(batch[key]))
            if armed.is_due(*STATE_PLACES):
                armed.fire(_state_element(self, armed.fault))
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
        items, loss = (
            inner if isinstance(inner := getattr(base, name, None), _Spoilt) else None
            for name in ("loss_items", "loss")
        )
        Faulty.loss_items = _Spoilt("loss_items", armed, _spoil_items, items, last=False)
        Faulty.loss = _Spoilt("loss", armed, lambda loss, factor: loss * factor, loss, last=True)
    Faulty.__name__ = Faulty.__qualname__ = named(base, armed.fault.place)
    return Faulty


@contextmanager
def _learning_rate_times(optimizer: Any, factor: float) -> Iterator[None]:
    """Multiply what the loop has set, so that it also acts in the warm-up, and restore it for the loop.

    A rate that the step itself changed, such as one of a restored state, stays.
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
    """Return a view of the middle element in any memory layout; None for an empty tensor."""
    return tensor.data[middle_index(tuple(tensor.shape))] if tensor.numel() else None


def _module_element(model: nn.Module, place: str, tensor: str) -> Tensor:
    name, module = find(model, place)
    found = _middle(value) if isinstance(value := getattr(module, ON_MODULES[tensor], None), Tensor) else None
    if found is None:
        raise InvalidCallError(f"{name} ({type(module).__name__}) has no {tensor}: a fault cannot be put there.")
    return found


def _state_element(trainer: Any, fault: Any) -> Tensor | None:
    """Return the element of the state to write to; None if that state does not exist yet."""
    place = fault.place
    if fault.module:
        return _module_element(trainer.model, fault.module, place)
    if place == "running_var":
        norms = [m for m in trainer.model.modules() if isinstance(getattr(m, "running_var", None), Tensor)]
        return _middle(norms[len(norms) // 2].running_var) if norms else None
    parameters = list(trainer.model.parameters())
    kernels = [i for i, p in enumerate(parameters) if p.ndim == 4 and p.requires_grad]
    index = kernels[len(kernels) // 2]
    if place == "weight":
        return _middle(parameters[index])
    if place == "ema":  # by number: names differ if the model is wrapped
        return _middle(list(trainer.ema.ema.parameters())[index]) if trainer.ema else None
    return _optimizer_element(trainer.optimizer, parameters[index], place)


def _optimizer_element(optimizer: Any, weight: nn.Parameter, place: str) -> Tensor | None:
    state = optimizer.state.get(weight)  # [] would create the state
    if not state:
        return None
    keys = MOMENTUM_KEYS if place == "momentum" else (place,)
    found = [state[key] for key in keys if isinstance(state.get(key), Tensor)]
    if not found:
        raise InvalidCallError(f"{type(optimizer).__name__} keeps no {place}: a fault cannot be put there.")
    return _middle(found[0])
