"""Loop: enters something around each batch of a trainer's class, from before the forward pass to the end of the batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

from torch import nn

from .armed import Armed, require_batches

LEAVING = ("run_callbacks", "_build_train_pipeline")
"""Methods of Ultralytics' loop that follow a batch before anything is copied, validated or written."""


def named(base: type, place: str) -> str:
    """Return the name of a trainer's class with a fault in it."""
    return f"{base.__name__}With{place.title().replace('_', '').replace('-', '')}Fault"


def around_batches(base: Any, armed: Armed, enter: Callable[[nn.Module], AbstractContextManager[Any]]) -> Any:
    """Return a subclass that enters something during each batch at which a fault is due.

    It lasts from the end of ``preprocess_batch`` to the next callback event, after the optimizer step: a repeated batch within it
    meets the same fault.
    """

    class Faulty(base):
        chaos = armed
        _around = ExitStack()  # one for all faults of a trainer: the last must leave first

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            self._around.close()
            armed.begin_batch()
            batch = super().preprocess_batch(batch)
            if armed.due > 0:
                self._around.enter_context(enter(self.model))
            return batch

        def optimizer_step(self) -> None:
            super().optimizer_step()
            if not hasattr(base, LEAVING[0]):  # a custom loop
                self._around.close()

        def train(self, *args: Any, **kwargs: Any) -> Any:
            with self._around:
                return super().train(*args, **kwargs)

    for name in LEAVING:
        if hasattr(base, name):
            setattr(Faulty, name, _leaving(Faulty, name))
    Faulty.__name__ = Faulty.__qualname__ = named(base, armed.fault.place)
    return Faulty


def _leaving(kind: Any, name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._around.close()
        return getattr(super(kind, self), name)(*args, **kwargs)

    return method


class ModuleFault(ABC):
    """A planned fault in a module of a network, for a trainer's class or for a network alone."""

    __slots__ = ()

    def on(self, base: type) -> Any:
        """Return a subclass of a trainer's class with this fault in it; ``chaos`` is the :class:`Armed` fault.

        Raises:
            InvalidCallError: No batch at all, or a negative one.
        """
        fault: Any = self  # the dataclass that is Planned
        require_batches(fault.at, fault.since)
        armed = Armed(fault)
        return around_batches(base, armed, lambda model: self._in(model, armed))

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[Armed]:
        """Put the fault into a network for a time; nothing stays on the model.

        Yields:
            The armed fault, counted once; its ``truth`` has all names once it has fired.

        Raises:
            InvalidCallError: There is no such module, or it cannot have this fault.
        """
        fault: Any = self
        armed = Armed(fault)
        armed.due = 1
        with self._in(model, armed):
            yield armed

    @abstractmethod
    def _in(self, model: nn.Module, armed: Armed) -> AbstractContextManager[None]:
        """Return the context in which the fault is in a network."""
