"""The parameter groups of an optimizer while its fused kernel runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fused_groups(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Turn the fused kernel on for one step, and leave the groups as they were for ``state_dict()``.

    Set anew for each step: a loaded state dict brings its own flags, and a stale ``fused: False`` refuses ``found_inf``.
    """
    before = [(group, group.get("fused"), group.get("foreach")) for group in optimizer.param_groups]
    try:
        for group, _, _ in before:
            group["fused"], group["foreach"] = True, False
        yield
    finally:
        for group, fused, foreach in before:
            group["fused"], group["foreach"] = fused, foreach
