"""Hashed numbers, the same on every machine: integer hashes, turned into floats on the CPU without a random generator."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch
from torch import Tensor

_MULTIPLIERS = (-4658895280553007687, -7723592293110705685)
"""Of SplitMix64, as signed 64-bit integers; products wrap around."""
_BITS = 24
"""Of randomness in each number: what a float32 holds exactly."""


def hash_stream(key: str, count: int) -> Tensor:
    """Return ``count`` hashed integers.

    Args:
        key: Names the stream; another key gives unrelated numbers.
        count: How many.

    Returns:
        int64 of shape (count,), on the CPU, over the whole range.
    """
    start = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little", signed=True)
    i = torch.arange(1, count + 1, dtype=torch.int64) * -7046029254386353131 + start
    for shift, multiplier in zip((30, 27), _MULTIPLIERS, strict=True):
        i = (i ^ (i >> shift)) * multiplier
    return i ^ (i >> 31)


class HashedDraw:
    """Draws named tensors of one check.

    Args:
        key: Seed and check; part of every name.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._drawn: dict[tuple[Any, ...], Tensor] = {}
        """A check's layouts and precisions draw the same numbers."""

    def __call__(self, name: str, *shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        """Return float64 numbers between ``low`` and ``high``, evenly distributed, in a new tensor."""
        asked = (name, shape, low, high)
        if asked not in self._drawn:
            bits = hash_stream(f"{self.key}/{name}", math.prod(shape)) & ((1 << _BITS) - 1)
            self._drawn[asked] = bits.double().mul_((high - low) / (1 << _BITS)).add_(low).reshape(shape)
        return self._drawn[asked].clone()

    def integers(self, name: str, *shape: int, below: int) -> Tensor:
        """Return int64 numbers from 0 to ``below - 1``."""
        bits = hash_stream(f"{self.key}/{name}", math.prod(shape)) & ((1 << 40) - 1)
        return (bits % below).reshape(shape)

    def distinct(self, name: str, rows: int, columns: int) -> Tensor:
        """Return float64 numbers of shape (rows, columns), all different within a row and exact in float32."""
        return (
            torch.stack([self.permutation(f"{name}{row}", columns) for row in range(rows)]).double() / 8 - columns / 16
        )

    def permutation(self, name: str, count: int) -> Tensor:
        """Return the numbers from 0 to ``count - 1`` in a hashed order, int64."""
        return hash_stream(f"{self.key}/{name}", count).argsort(stable=True)


def sha256_of(tensors: dict[str, Tensor]) -> str:
    """Return one digest of the bytes of tensors, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()  # bfloat16 is unknown to NumPy; bytes are not
