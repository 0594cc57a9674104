"""Loss items: the loss and its parts as a loop hands them in; each has to be one number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import InvalidCallError


def tensors_among(loss: Tensor, items: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the items that are tensors.

    Raises:
        InvalidCallError: The loss or an item is not one number.
    """
    if loss.numel() != 1:
        raise InvalidCallError(
            f"StepGuard.backward() takes a loss of one element, not of shape {tuple(loss.shape)}. Reduce it first."
        )
    for name, item in items.items():
        if not isinstance(item, (Tensor, int, float)):
            raise InvalidCallError(f"StepGuard.backward() takes numbers as loss items, but {name!r} is {item!r}.")
    tensors = {name: item for name, item in items.items() if isinstance(item, Tensor)}
    for name, item in tensors.items():
        if item.numel() != 1:
            raise InvalidCallError(
                f"StepGuard.backward() takes loss items of one element, but {name!r} has shape {tuple(item.shape)}."
            )
    return tensors
