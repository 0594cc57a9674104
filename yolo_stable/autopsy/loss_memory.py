"""Loss memory: finds the non-finite numbers that a loss keeps, and replaces them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from ..guard.holders import ArrayNumbers, Attributes, Items, Numbers
from ..guard.memory import CRITERION, Memory

INSTEAD = 1.0
"""It causes no division by zero and has little weight."""


@torch.no_grad()
def mend(model: nn.Module, only: str = "") -> tuple[str, ...]:
    """Replace every non-finite number that the model's loss keeps by 1.

    Args:
        model: Has its loss as ``criterion``; call it inside ``untouched``.
        only: Only in this place, as an earlier call named it.

    Returns:
        The places, as attributes of the loss such as ``mean`` or ``by_name['iou']``, of other modules with their path.

    Syncs: one per tensor of the loss.
    """
    found: list[str] = []

    def wanted(path: str) -> bool:
        name = path.removeprefix(f"{CRITERION}.")
        if only in {"", name}:
            found.append(name)
        return only in {"", name}

    for holders in Memory(model).holders().values():
        for holder in holders:
            held: Any = holder.held
            if isinstance(holder, Numbers):
                if held.is_floating_point() and not bool(held.isfinite().all()) and wanted(holder.path):
                    held.data.copy_(torch.where(held.isfinite(), held, torch.full_like(held, INSTEAD)))
            elif isinstance(holder, ArrayNumbers):
                if held.dtype.kind == "f" and not np.isfinite(held).all() and wanted(holder.path):
                    held[~np.isfinite(held)] = INSTEAD
            elif isinstance(holder, (Attributes, Items)):
                content: Any = holder.read()
                numbers = [(key, path) for key, path, value in holder.parts() if isinstance(value, float)]
                bad = [key for key, path in numbers if not math.isfinite(content[key]) and wanted(path)]
                for key in bad:
                    content[key] = INSTEAD
                if bad:
                    holder.write(content)
    return tuple(found)
