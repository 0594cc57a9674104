"""Live state: every tensor that training reads, by name."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..guard.wrappers import plainly_named

CLASS_WEIGHTS = "class_weights"


def named_state(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor that training reads, by name: parameters, buffers, class weights, optimizer state."""
    yield from plainly_named(model.named_parameters())
    yield from plainly_named(model.named_buffers())
    weights = getattr(model, CLASS_WEIGHTS, None)  # an attribute that Ultralytics sets for cls_pw, not a buffer
    if isinstance(weights, Tensor):
        yield CLASS_WEIGHTS, weights
    if optimizer is not None:
        names = {id(parameter): name for name, parameter in plainly_named(model.named_parameters())}
        for parameter, state in optimizer.state.items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    yield f"optimizer {key} of {names.get(id(parameter), 'a parameter')}", value
