"""A trainer's class with something around each batch: put there before the forward pass and gone at the end of the batch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import nn

from .armed import Armed

LEAVING = ("run_callbacks", "_build_train_pipeline")
"""Methods of Ultralytics' loop that come behind a batch before anything is copied, validated or written."""


def named(base: type, place: str) -> str:
    """Return the name of a trainer's class with a fault in it."""
    return f"{base.__name__}With{place.title().replace('_', '').replace('-', '')}Fault"


def around_batches(base: Any, armed: Armed, enter: Callable[[nn.Module], AbstractContextManager[Any]]) -> Any:
    """Return a subclass that enters something for the time of each batch at which a fault is due.

    From the end of ``preprocess_batch`` to the next callback event, which comes behind the optimizer step: whoever runs the
    batch again within it meets the same fault.
    """

    class Faulty(base):
        chaos = armed
        _around = ExitStack()  # one for all faults of a trainer: what came last has to go first

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            self._around.close()
            armed.begin_batch()
            batch = super().preprocess_batch(batch)
            if armed.due > 0:
                self._around.enter_context(enter(self.model))
            return batch

        def optimizer_step(self) -> None:
            super().optimizer_step()
            if not hasattr(base, LEAVING[0]):  # a loop of somebody's own
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
