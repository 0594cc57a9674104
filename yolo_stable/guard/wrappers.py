"""The module inside what training wraps around it."""

from __future__ import annotations

from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of data-parallel training and compilation."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or _ddp_module(model), nn.Module):
        model = inner
    return model


def _ddp_module(model: nn.Module) -> nn.Module | None:
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return model.module if isinstance(model, parallel) else None
