"""Witness: runs the micro-batch at hand once more, under the current or under older weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .memory import Memory
from .ranks import Ranks, is_sharded
from .untouched import device_of, untouched
from .wrappers import plain_name, plainly_named

MODEL = "model/"
Again = Callable[[], Tensor | tuple[Tensor, Tensor]]
"""Computes the unscaled loss of the guard's last micro-batch once more, with the model as it is; optionally with the share of
what the loss is about that was found, in [0, 1]."""


@dataclass(frozen=True, slots=True)
class BatchMeasurement:
    """One micro-batch under one state; NaN for a number that was not measured."""

    loss: float
    norm: float = math.nan
    """Global 2-norm of the gradient."""
    found: float = 1.0
    """The share that was found, in [0, 1], to which loss and norm are proportional."""

    @property
    def whole(self) -> BatchMeasurement:
        """Loss and norm as if all had been found; infinite if nothing was, as such a state has shown nothing."""
        return BatchMeasurement(_divided(self.loss, self.found), _divided(self.norm, self.found))


class Witness:
    """Measures one micro-batch under two states of the model: the data are the same, so any difference comes from the model.

    It leaves no trace: see `untouched`. It uses weights on the model's device where they lie, and copies others to it for the
    call. It always copies buffers, since a forward pass writes them.

    Args:
        model: The module that is trained, without wrappers.
        again: Runs the forward pass.
        ranks: The other processes that train the model.
        memory: What the loss keeps from batch to batch, and what other objects keep.
    """

    def __init__(self, model: nn.Module, again: Again, ranks: Ranks, memory: Memory | None = None) -> None:
        self.model, self._again, self._ranks, self._memory = model, again, ranks, memory

    def hindrance(self) -> str:
        """Return why this rank cannot run the forward pass alone; empty if it can."""
        if not self._ranks.shared:
            return ""
        if any(isinstance(module, nn.SyncBatchNorm) for module in self.model.modules()):
            return "SyncBatchNorm would wait for the other ranks"
        if is_sharded(self.model):
            return "weights that are spread over ranks cannot be computed with by one of them"
        return ""

    def measure(self, tensors: Mapping[str, Tensor] | None, *, norm: bool) -> BatchMeasurement:
        """Run the micro-batch forward, and backward for the norm; the numbers may be infinite or NaN.

        Args:
            tensors: Those of a snapshot; None: the model as it is.
            norm: Also measure the gradient's norm, with the memory of one more backward pass.

        Raises:
            Exception: Whatever the passes raise, out of memory included; the model is as before then too.

        Syncs: one.
        """
        if self._memory is None:
            return self._measured(tensors or {}, {}, norm)
        self._memory.before_replay()
        try:
            return self._measured(tensors or {}, self._memory.beside, norm)
        finally:
            self._memory.settle()

    def _measured(self, tensors: Mapping[str, Tensor], beside: Mapping[str, Any], norm: bool) -> BatchMeasurement:
        with (
            untouched(self.model, beside=beside),
            self._ranks.unasked(),
            self._other(tensors),
            torch.set_grad_enabled(norm),
        ):
            answer = self._again()
            loss, found = answer if isinstance(answer, tuple) else (answer, torch.ones(()))
            numbers = [loss.detach().float(), found.to(loss.device, torch.float32)]
            if norm:
                parameters = [p for p in self.model.parameters() if p.requires_grad]
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
                norms = torch._foreach_norm([g for g in gradients if g is not None])
                numbers.append(torch.stack([n.float() for n in norms]).norm())
            read = torch.stack([number.reshape(()) for number in numbers]).tolist()
        return BatchMeasurement(read[0], read[2] if norm else math.nan, read[1])

    @contextmanager
    def _other(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Give the model other weights and statistics within this context."""
        device = device_of(self.model)
        own: list[tuple[Tensor, Tensor]] = []
        try:
            for name, module in self.model.named_modules():
                prefix = plain_name(name)
                for key, buffer in module._buffers.items():
                    theirs = tensors.get(f"{MODEL}{prefix}.{key}" if prefix else MODEL + key)
                    if buffer is not None and theirs is not None:  # `untouched` restores the module's own
                        module._buffers[key] = theirs.to(device, buffer.dtype, copy=True)
            for name, parameter in plainly_named(self.model.named_parameters()):
                theirs = tensors.get(MODEL + name)
                if theirs is not None and theirs.shape == parameter.shape:
                    own.append((parameter, parameter.data))
                    parameter.data = theirs.to(parameter.device, parameter.dtype)
            yield
        finally:
            for parameter, data in own:
                parameter.data = data


def _divided(number: float, share: float) -> float:
    return number / share if share > 0 else math.inf
