"""What a loss keeps from batch to batch, when it is not finite: named, and another number put in its place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from ..guard.holders import ArrayNumbers, Attributes, Items, Numbers
from ..guard.memory import CRITERION, Memory

INSTEAD = 1.0
"""Neither divides by zero nor weighs much."""


@torch.no_grad()
def mend(model: nn.Module) -> tuple[str, ...]:
    """Put 1 in the place of every number that the model's loss keeps and that is not finite.

    Args:
        model: Has its loss as ``criterion``; call it inside ``untouched``.

    Returns:
        Where there was one, as attributes of the loss such as ``mean`` or ``by_name['iou']``; of other modules with their path.

    Syncs: one for each tensor of the loss.
    """
    found: list[str] = []
    for holders in Memory(model).holders().values():
        for holder in holders:
            held: Any = holder.held
            if isinstance(holder, Numbers):
                if held.is_floating_point() and not bool(held.isfinite().all()):
                    held.data.copy_(torch.where(held.isfinite(), held, torch.full_like(held, INSTEAD)))
                    found.append(holder.path)
            elif isinstance(holder, ArrayNumbers):
                if held.dtype.kind == "f" and not np.isfinite(held).all():
                    held[~np.isfinite(held)] = INSTEAD
                    found.append(holder.path)
            elif isinstance(holder, (Attributes, Items)):
                content: Any = holder.read()
                bad = [
                    (k, path)
                    for k, path, value in holder.parts()
                    if isinstance(value, float) and not math.isfinite(value)
                ]
                for key, path in bad:
                    content[key] = INSTEAD
                    found.append(path)
                if bad:
                    holder.write(content)
    return tuple(path.removeprefix(f"{CRITERION}.") for path in found)
