"""Loss watcher: a loss that raises on non-finite numbers has its batch rejected like any other bad one.

What is NaN becomes an index of -9e18 when it is made a whole number, and the loss raises before the guard is ever asked. No
prediction does that to Ultralytics' losses, and no label that passes `label_filter.disarm` (outputs of fifteen modules of each
task were tried, NaN, infinite and huge, on the CPU); a broken number within the assignment of boxes does, or in
a loss of one's own. On CUDA such an index is an assertion on the device, which no process survives: that error is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from ..autopsy.frames import tensors_in
from ..autopsy.symptom import RAISED
from ..checkpoints.trainer_view import TrainerView
from ..guard.graph import free_graph
from ..guard.wrappers import unwrap

LOST = ("out of memory", "CUDA error", "HIP error", "device-side assert")
"""In the text of an error that is not about numbers, or after which the device does not answer any more."""


class LossWatcher:
    """Turns what a loss raises on non-finite numbers into a fault of the batch.

    Args:
        trainer: Read for the model and the names of its loss items.
    """

    def __init__(self, trainer: TrainerView) -> None:
        self._trainer = trainer
        self.fault = ""
        """What the newest watched loss raised; empty: nothing."""

    def watch(self) -> None:
        """Watch the next call of the model's loss; nothing stays on the model after it."""
        self.fault = ""
        model: Any = unwrap(self._trainer.model)
        if hasattr(model, "loss"):
            vars(model)["loss"] = _Watched(model, self)

    def leave(self) -> None:
        """Stop waiting for a call that did not come, as when memory ran out before it."""
        model = getattr(self._trainer, "model", None)  # there is none before the training is set up, or but its name
        held = vars(unwrap(model)) if isinstance(model, nn.Module) else {}
        if isinstance(held.get("loss"), _Watched):
            del held["loss"]

    @property
    def has_other_ranks(self) -> bool:
        """Whether other ranks wait for the gradients of this one."""
        guard = self._trainer.guard
        return guard is not None and guard.ranks.shared

    def raised(self, error: Exception, model: nn.Module) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Return a loss that the guard rejects, and note why; None when the error has nothing to do with numbers.

        Syncs: one for each tensor of the code that raised; it is not called while all is well.
        """
        if any(word in str(error) for word in LOST):
            return None
        try:
            bad = next(_not_finite(error.__traceback__), "")
        except RuntimeError:  # the device does not answer
            return None
        if not bad:
            return None
        said = " ".join(str(error).split())
        self.fault = f"{RAISED} {type(error).__name__} ({said[:100]}), as {bad} is not finite"
        parameters = [p for p in model.parameters() if p.requires_grad]
        loss = torch.full((), math.nan, device=parameters[0].device)
        if self.has_other_ranks:  # they wait for all gradients of this one
            loss = loss + torch.stack([p.reshape(-1)[0].float() for p in parameters]).sum()
        return loss, {name: loss.detach() for name in self._trainer.loss_names}


class _Watched:
    """Stands in the place of a model's ``loss`` for one call; a copy or a pickle of the model is one without it."""

    def __init__(self, model: nn.Module, watcher: LossWatcher) -> None:
        self.model, self.watcher = model, watcher

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own: Any = type(self.model).loss.__get__(self.model)  # pyright: ignore[reportAttributeAccessIssue]
        if vars(self.model).get("loss") is self:
            del vars(self.model)["loss"]
        try:
            return own(*args, **kwargs)
        except (RuntimeError, IndexError) as error:
            instead = self.watcher.raised(error, self.model)
            if instead is None:
                raise
            if not self.watcher.has_other_ranks:
                # of a compiled model the loop holds the predictions, until it has the next ones
                free_graph([tensor for _, tensor in tensors_in([args, kwargs])], list(self.model.parameters()))
            return instead

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        model = memo.get(id(self.model), self.model)
        return type(model).loss.__get__(model)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.model, "loss")


def _not_finite(trace: TracebackType | None) -> Iterator[str]:
    """Yield the names of variables that are not finite in the code that raised, the innermost first."""
    frames = []
    while trace is not None:
        frames.append(trace.tb_frame)
        trace = trace.tb_next
    for frame in reversed(frames):
        for name, value in frame.f_locals.items():
            for part in _parts(value):
                if part.is_floating_point() and part.numel() and not bool(part.detach().isfinite().all()):
                    yield name
                    break


def _parts(value: Any, depth: int = 0) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if value.layout == torch.strided and not value.is_meta:
            yield value
    elif depth < 2 and isinstance(value, (list, tuple, Mapping)):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _parts(part, depth + 1)
