"""Ranks: the processes that train one model, and how they agree when something is wrong.

While all is well they add no collective. After a rejected window all ranks ask each other, and only windows count in their
limits.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Ranks:
    """The processes that share the gradients of one model.

    A process group alone says nothing about a model: it may serve data loading, metrics, or another model of the same process.
    Gradients are shared by a wrapper: ``DistributedDataParallel`` or FSDP around the model, inside it, or around the same
    parameters if the bare module is given. The ranks ask its process group.

    Args:
        model: The trained model, wrapped or not.
        distributed: True, or the process group: other ranks train this model, although no wrapper shows it. False: they do not.
            None: the wrapper tells.
    """

    def __init__(self, model: nn.Module, distributed: bool | dist.ProcessGroup | None = None) -> None:
        self._model = model
        self._said = distributed
        self._group: dist.ProcessGroup | None = None
        self.shared = False
        """Whether gradients are shared with other ranks."""
        self._forward_seen = False
        self._wrappers: list[nn.parallel.DistributedDataParallel] | None = None
        self._look()

    def forward_seen(self) -> None:
        """Look again after the first forward pass: by then the model is wrapped, if it ever is."""
        if not self._forward_seen:
            self._forward_seen = True
            self._look()

    def any(self, wish: bool) -> bool:
        """Return whether any rank has a wish; all ranks have to ask.

        Syncs: one collective of one number, when gradients are shared.
        """
        return bool(self.highest(int(wish)))

    def lowest(self, step: int) -> int:
        """Return the lowest number that any rank has; all ranks have to ask.

        Syncs: one collective of one number, when gradients are shared.
        """
        if not self.shared:
            return step
        number = torch.tensor([step], device=self._reachable())
        dist.all_reduce(number, op=dist.ReduceOp.MIN, group=self._group)
        return int(number.item())

    def highest(self, number: int) -> int:
        """Return the highest number that any rank has; all ranks have to ask.

        Syncs: one collective of one number, when gradients are shared.
        """
        return -self.lowest(-number)

    def gather(self, own: Any) -> list[Any]:
        """Return each rank's value, by rank; all ranks have to ask. Values are small and of plain types.

        Syncs: a collective of its size and one of its bytes, when gradients are shared.
        """
        if not self.shared:
            return [own]
        found = [own] * dist.get_world_size(self._group)
        dist.all_gather_object(found, own, group=self._group)
        return found

    @contextmanager
    def unasked(self) -> Iterator[None]:
        """Let the wrapped model run forward without any exchange: the other ranks do not run it."""
        if self.shared and self._wrappers is None:
            found = [*_wrappers_within(self._model), *_wrappers_around(self._model)]
            self._wrappers = [one for one in found if isinstance(one, nn.parallel.DistributedDataParallel)]
        wrappers = self._wrappers or []
        kept = [(one, one.require_forward_param_sync, one.require_backward_grad_sync) for one in wrappers]
        try:
            for wrapper in wrappers:
                wrapper.require_forward_param_sync = wrapper.require_backward_grad_sync = False
            yield
        finally:
            for wrapper, forward, backward in kept:
                wrapper.require_forward_param_sync, wrapper.require_backward_grad_sync = forward, backward

    def _look(self) -> None:
        if self.shared or self._said is False or not (dist.is_available() and dist.is_initialized()):
            return
        if self._said is None:
            groups = _groups(self._model) if dist.get_world_size() > 1 else iter(())
            self._group, found = next(((group, True) for group in groups), (None, False))
        else:
            found = True
            self._group = None if self._said is True else self._said
        self.shared = found and dist.get_world_size(self._group) > 1

    def _reachable(self) -> torch.device:
        """Return where the process group reaches a tensor: gloo on the host, the others on their device."""
        device = next(self._model.parameters()).device
        return torch.device("cpu") if dist.get_backend(self._group) == "gloo" else device


def is_sharded(model: nn.Module) -> bool:
    """Return whether weights are spread over ranks, and none can compute with the model alone."""
    wrappers = _imported("torch.distributed.fsdp", "FullyShardedDataParallel")
    tensors = _imported("torch.distributed.tensor", "DTensor")
    return any(isinstance(m, wrappers) for m in model.modules()) or any(
        isinstance(p, tensors) for p in model.parameters()
    )


def _groups(model: nn.Module) -> Iterator[dist.ProcessGroup | None]:
    """Yield the process groups that share gradients of a model; None: that of all processes."""
    sharded = _imported("torch.distributed.tensor", "DTensor")
    for wrapper in _wrappers_within(model):
        yield wrapper.process_group
    for parameter in model.parameters():
        if isinstance(parameter, sharded):  # fully_shard() leaves no wrapper behind
            mesh: Any = parameter.device_mesh  # pyright: ignore[reportAttributeAccessIssue]
            yield mesh.get_group() if mesh.ndim == 1 else None
    for wrapper in _wrappers_around(model):
        yield wrapper.process_group


def _wrappers_within(model: nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, _wrapping())]


def _wrappers_around(model: nn.Module) -> Iterator[Any]:
    trained = {id(parameter) for parameter in model.parameters()}
    gc.collect()  # a wrapper that is no longer used does not count
    for thing in gc.get_objects():  # nothing in a module tells that it is inside a wrapper
        if issubclass(type(thing), _wrapping()) and any(id(parameter) in trained for parameter in thing.parameters()):
            yield thing


def _wrapping() -> tuple[type, ...]:
    fully_sharded = _imported("torch.distributed.fsdp", "FullyShardedDataParallel")
    return nn.parallel.DistributedDataParallel, *fully_sharded


def _imported(module: str, name: str) -> tuple[type, ...]:
    """Return a class if its module was ever imported: else it has no instance, and importing takes seconds."""
    return (getattr(sys.modules[module], name),) if module in sys.modules else ()


def backward_nan(loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """Make every gradient NaN that ``loss`` reaches, also behind clamp() or where(), which turn NaN into zero.

    The exchange of gradients, as of any backward pass, tells the other ranks.
    """
    hooks = [p.register_hook(_to_nan) for p in parameters]
    try:
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()


def _to_nan(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient * float("nan")  # autograd also asks where there is none
