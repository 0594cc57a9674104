"""Found: how much of its objects a detector finds in a batch, without which its loss says nothing about its weights.

Ultralytics' detection losses are sums over what the assigner matches, divided by the sum of the target scores, which is taken for
1 when it is smaller. A network that finds no object has next to no loss therefore, less than any that finds some: training from
scratch raises it a hundredfold when it begins to learn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from ultralytics.utils.tal import TaskAlignedAssigner

TARGET_SCORES, MASK_OF_OBJECTS = 2, 5
"""Where these stand among what an assigner returns, and among what it is given."""


class Found:
    """What the assigners said while a loss was computed."""

    def __init__(self) -> None:
        self._shares: list[Tensor] = []

    @property
    def share(self) -> Tensor:
        """What the loss has to be divided by to be comparable with that of other weights: one float32 element, in [0, 1].

        0: none of the objects was found. 1 also when there are none, or the loss has no such assigner.

        Syncs: none.
        """
        return torch.stack(self._shares).amin() if self._shares else torch.ones(())

    def hear(self, module: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        """Take what an assigner was given and has returned."""
        if isinstance(module, TaskAlignedAssigner) and len(args) > MASK_OF_OBJECTS:
            has_none = ~args[MASK_OF_OBJECTS].any()
            self._shares.append(output[TARGET_SCORES].float().sum().clamp(max=1.0).masked_fill(has_none, 1.0))


@contextmanager
def finding() -> Iterator[Found]:
    """Listen to all assigners in here."""
    heard = Found()
    handle = register_module_forward_hook(heard.hear)
    try:
        yield heard
    finally:
        handle.remove()
