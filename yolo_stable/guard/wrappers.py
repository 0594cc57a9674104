"""Wrappers: the module inside those of data-parallel training and compilation, and its own names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from torch import nn

COMPILED = "_orig_mod"
"""Part that ``torch.compile`` adds to the names of modules, parameters and buffers, at every compiled module."""
T = TypeVar("T")


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of data-parallel training and compilation."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or _ddp_module(model), nn.Module):
        model = inner
    return model


def plain_name(name: str) -> str:
    """Return a dotted name as in a model that was not compiled.

    Examples:
        >>> plain_name("_orig_mod.model.0.conv.weight"), plain_name("model.2._orig_mod.cv1.bn"), plain_name("_orig_mod")
        ('model.0.conv.weight', 'model.2.cv1.bn', '')
    """
    return ".".join(part for part in name.split(".") if part != COMPILED) if COMPILED in name else name


def plainly_named(named: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Yield pairs, as of ``named_parameters()``, with the names of a model that was not compiled.

    For modules use :func:`plain_modules`: a wrapper has the name of its module.
    """
    for name, value in named:
        yield plain_name(name), value


def plain_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what ``named_modules()`` does, without the wrappers of ``torch.compile`` and their part of the names."""
    for name, module in model.named_modules():
        if COMPILED not in module._modules:
            yield plain_name(name), module


def _ddp_module(model: nn.Module) -> nn.Module | None:
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return model.module if isinstance(model, parallel) else None
