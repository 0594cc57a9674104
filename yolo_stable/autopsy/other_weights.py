"""The same network with other weights: those of a snapshot, or drawn anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..guard.untouched import untouched
from ..guard.wrappers import plainly_named
from .twin import twin

SEED = 0


def other_weights(model: nn.Module, state: Mapping[str, Tensor] | None) -> nn.Module:
    """Return a copy of a network with other weights.

    Args:
        model: Is left as it is.
        state: Parameters and buffers by name; what it does not have stays as it is. None: each module that knows how draws
            its parameters anew, always the same ones.

    Returns:
        The copy, on the same device, with the same hooks.
    """
    made = twin(model)
    with torch.no_grad(), untouched(model):  # for the generators
        if state is not None:
            for name, tensor in plainly_named([*made.named_parameters(), *made.named_buffers()]):
                if name in state:
                    tensor.copy_(state[name])
            return made
        torch.manual_seed(SEED)
        for module in made.modules():
            reset: Any = getattr(module, "reset_parameters", None)
            if callable(reset):
                reset()
    return made
