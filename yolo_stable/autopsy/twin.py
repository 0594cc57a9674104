"""Copies of a network for comparison, with the hooks on its parameters, which Python's own copy leaves behind."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from ..guard.wrappers import plainly_named


def twin(model: nn.Module) -> nn.Module:
    """Return a copy of a network whose parameters have the same hooks: one of them may be what is at fault."""
    made = copy.deepcopy(model)
    hang_hooks(model, made)
    return made


def hang_hooks(model: nn.Module, made: nn.Module) -> None:
    """Give the parameters of a copy the hooks of the parameters that they were copied from."""
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
