"""Twin of a network: a copy with the same or other weights, and with the hooks that Python's copy leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..guard.untouched import untouched
from ..guard.wrappers import plainly_named

SEED = 0


def twin(model: nn.Module) -> nn.Module:
    """Return a copy whose parameters have the same hooks: one of them may be at fault."""
    made = copy.deepcopy(model)
    copy_hooks(model, made)
    return made


def other_weights(model: nn.Module, state: Mapping[str, Tensor] | None) -> nn.Module:
    """Return a copy with other weights, on the same device and with the same hooks.

    Args:
        model: Stays as it is.
        state: Parameters and buffers by name; others stay as they are. None: each module that can draws its parameters anew,
            always the same ones.
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


def copy_hooks(model: nn.Module, made: nn.Module) -> None:
    """Give the parameters of a copy the hooks of the originals."""
    copies = dict(plainly_named(made.named_parameters()))
    for name, parameter in plainly_named(model.named_parameters()):
        mine = copies.get(name)
        if mine is None or mine is parameter:
            continue
        for kind, hang in (
            ("_backward_hooks", mine.register_hook),
            ("_post_accumulate_grad_hooks", mine.register_post_accumulate_grad_hook),
        ):
            hooks: Mapping[Any, Any] | None = getattr(parameter, kind, None)
            if hooks and not getattr(mine, kind, None):
                for hook in hooks.values():
                    hang(hook)
