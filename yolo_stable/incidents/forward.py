"""The forward pass of a training batch once more, as Ultralytics' loop runs it; in a run, and from a bundle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..autopsy.case import Forward

AMP: dict[str, torch.dtype | None] = {"float32": None, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""The dtype of autocast, by the name of the precision; None: without autocast.

It is named on every device: left to the device, float16 would be bfloat16 on the CPU, and Ultralytics' own ``autocast`` refuses
bfloat16 there.
"""


def precision_of(amp: bool, asked: Any) -> str:
    """Return the name of the precision that the loop trains in.

    Args:
        amp: Whether autocast is on.
        asked: Ultralytics' ``amp`` argument.
    """
    return "float32" if not amp else "bfloat16" if asked == "bf16" else "float16"


def forward_of(precision: str, device: torch.device, generators: Callable[[], None]) -> Forward:
    """Return what runs a batch forward.

    Args:
        precision: One of :data:`AMP`.
        device: What is trained on.
        generators: Sets the random number generators to what they were before the batch.

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
