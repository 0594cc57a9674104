"""Forward pass: runs a training batch once more as Ultralytics' loop does, in a run or from a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..autopsy.case import Forward

AMP: dict[str, torch.dtype | None] = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Autocast's dtype by the name of the precision; None: without autocast.

It is explicit on every device: by default float16 would become bfloat16 on the CPU, and Ultralytics' own ``autocast`` refuses
bfloat16 there.
"""


def precision_of(amp: bool, asked: Any) -> str:
    """Return the name of the loop's precision.

    Args:
        amp: Whether autocast is on.
        asked: Ultralytics' ``amp`` argument.
    """
    return "float32" if not amp else "bfloat16" if asked == "bf16" else "float16"


def forward_of(precision: str, device: torch.device, generators: Callable[[], None]) -> Forward:
    """Return a function that runs a batch forward.

    Args:
        precision: One of :data:`AMP`.
        device: The device that trains.
        generators: Restores the random number generators from before the batch.

    Raises:
        KeyError: Another precision.
    """
    dtype = AMP[precision]

    def forward(model: nn.Module, batch: Any, wanted: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        generators()
        with torch.amp.autocast(device.type, dtype=dtype, enabled=dtype is not None and wanted is None):
            loss, items = model(batch)
            return loss.sum(), items

    return forward
