"""Untouched: a context that leaves the model as it was, whatever happens inside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .generators import random_state, restore_random_state
from .memory import Memory


@contextmanager
def untouched(
    model: nn.Module, device: torch.device | None = None, beside: Mapping[str, Any] | None = None
) -> Iterator[None]:
    """Leave the model and the generators as they were, also after an exception.

    Inside, gradients are set aside (``.grad`` is None); the cost is one more copy of the buffers. On exit the context restores
    the random number generators of Python, NumPy, torch and the device, all buffers bit for bit and in their own memory, the
    very gradient tensors, the training flag of each module, autocast and grad mode, and what the loss keeps from batch to batch
    (:class:`~yolo_stable.guard.memory.Memory`). It does not copy weights: neither a forward nor a backward pass writes them.

    Args:
        model: Any module.
        device: The device whose generator is used; None: that of the first parameter.
        beside: Other objects that keep something from batch to batch, by name.
    """
    device = device or device_of(model)
    tensors, numbers = random_state(device)
    modules = list(model.modules())
    training = [module.training for module in modules]
    buffers = [dict(module._buffers.items()) for module in modules]
    values = {id(b): (b, b.detach().clone()) for held in buffers for b in held.values() if b is not None}
    gradients: list[tuple[Tensor, Tensor | None]] = [(p, p.grad) for p in model.parameters()]
    grad_mode = torch.is_grad_enabled()
    memory = Memory(model, beside)
    kept = memory.capture()
    kinds = {"cpu", device.type}
    autocast = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds]
    try:
        for p, _ in gradients:
            p.grad = None
        yield
    finally:
        torch.set_grad_enabled(grad_mode)
        for kind, enabled, dtype in autocast:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        for module, flag, held in zip(modules, training, buffers, strict=True):
            module.training = flag
            if isinstance(module._buffers, dict):  # a scripted module's is of another kind, and fixed
                module._buffers.clear()
                module._buffers.update(held)
        for buffer, value in values.values():
            buffer.data.copy_(value)  # through `data`: what autograd has saved of a live graph stays valid
        memory.restore(kept, whole=True)
        for p, gradient in gradients:
            p.grad = gradient
        restore_random_state(tensors, numbers, device)


def device_of(model: nn.Module) -> torch.device:
    """Return the device of the first parameter or buffer, the CPU when there is none."""
    first = next(model.parameters(), None)
    if first is None:
        first = next(model.buffers(), None)
    return torch.device("cpu") if first is None else first.device
