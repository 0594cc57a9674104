"""Sketch: a tensor in sixteen numbers, sums with hashed signs. Two sketches are about as far apart as their tensors."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import torch
from torch import Tensor

from .hashed import hash_stream

SIZE = 16
_MOST = 1 << 20
_AT_ONCE = 1 << 14
"""Elements up to which all sums are one product: its signs take 2 MB."""


@lru_cache(maxsize=1)
def _few_signs() -> Tensor:
    return _signs(_AT_ONCE).double()


@lru_cache(maxsize=8)
def _signs(count: int) -> Tensor:
    bits = hash_stream("sketch", count)
    return torch.stack([1 - 2 * ((bits >> k) & 1) for k in range(SIZE)]).to(torch.int8)


def sketch(tensor: Tensor, most: int = _MOST) -> tuple[float, ...]:
    """Return the sixteen sums of a tensor on the CPU, in float64; what is not finite counts as zero.

    Of a tensor with more than ``most`` elements, evenly spaced ones stand for all. For two tensors a and b, the mean of the
    squared differences of their sketches is an unbiased estimate of ``||a - b||^2``.

    Source: Alon, Matias, Szegedy, "The space complexity of approximating the frequency moments", 1996.
    """
    flat = tensor.detach().reshape(-1)
    step = max(-(-flat.numel() // most), 1)
    flat = flat[::step].double()
    if step > 1:
        flat = flat * math.sqrt(step)
    if not math.isfinite(float(flat.sum())):
        flat = torch.where(torch.isfinite(flat), flat, torch.zeros_like(flat))
    if flat.numel() <= _AT_ONCE:  # of a longer stream, the beginning is the same
        return tuple((_few_signs()[:, : flat.numel()] @ flat).tolist())
    return tuple(float((signs * flat).sum()) for signs in _signs(flat.numel()))


def brief_sketch(tensor: Tensor) -> tuple[float, ...]:
    """Return the sketch of few elements of a large tensor, for what a check compares."""
    return sketch(tensor, _AT_ONCE)


def total_sketch(tensors: Iterable[Tensor]) -> tuple[float, ...]:
    """Return the sum of the sketches of tensors; empty where there are none."""
    sketches = [brief_sketch(tensor) for tensor in tensors]
    return tuple(sum(s[k] for s in sketches) for k in range(SIZE)) if sketches else ()
