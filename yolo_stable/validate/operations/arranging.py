"""Layouts and broadcast shapes of the tensors in a covering array."""

from __future__ import annotations

import math

import torch
from torch import Tensor

LAYOUTS = ("plain", "channels_last", "turned", "gaps", "offset", "expanded")
BROADCASTS = (
    "none", "a-first", "a-middle", "a-last", "b-first", "b-middle", "b-last", "crossed", "fewer", "zero-dim", "rows",
)  # fmt: skip
"""Of which operand which dimension has the size 1; ``fewer``: the second has one dimension, ``rows``: the first has two."""
SHAPES: dict[str, tuple[int, ...]] = {
    "one": (1, 1, 1, 1),
    "odd": (3, 5, 3, 7),
    "even": (2, 8, 4, 8),
    "wide": (2, 3, 2, 67),
    "deep": (2, 66, 3, 3),
    "line": (1, 1, 1, 1_031),
}
"""Of one element; with no side that is a multiple of 4; with sides that are; beyond blocks of 32 and 64; beyond 1024."""
_SINGLE = {"first": 0, "middle": 2, "last": -1}


def tiled(x: Tensor, *shape: int) -> Tensor:
    """Return a shape filled with the numbers again and again."""
    count = math.prod(shape)
    return x.repeat(-(-count // x.numel()))[:count].view(shape)


def arranged(x: Tensor, layout: str) -> Tensor:
    """Return a tensor with the numbers of a contiguous one, lying in memory in another way.

    Args:
        x: Of any shape.
        layout: One of ``LAYOUTS``; ``expanded`` repeats the first of the first dimension with stride 0.
    """
    if layout == "channels_last" and x.ndim == 4:
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "turned" and x.ndim > 1:
        return x.transpose(-1, -2).contiguous().transpose(-1, -2)
    if layout == "gaps" and x.ndim > 0:
        return x.new_full((*x.shape[:-1], 2 * x.shape[-1]), 7)[..., ::2].copy_(x)
    if layout == "offset":
        return x.new_full((x.numel() + 3,), 7)[3:].view(x.shape).copy_(x)
    if layout == "expanded" and x.ndim > 0:
        return x[:1].expand(x.shape)
    return x


def shapes(shape: tuple[int, ...], broadcast: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of two operands whose result has a shape."""
    a, b = list(shape), list(shape)
    which, _, place = broadcast.partition("-")
    if place in _SINGLE:
        (a if which == "a" else b)[_SINGLE[place]] = 1
    elif broadcast == "crossed":
        a[2], b[3] = 1, 1
    elif broadcast == "fewer":
        b = b[-1:]
    elif broadcast == "rows":
        a = a[-2:]
    elif broadcast == "zero-dim":
        b = []
    return tuple(a), tuple(b)
