"""Gradient summary: which gradients of a model are missing, zero or not finite at one moment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..guard.reductions import maximum


@dataclass(frozen=True, kw_only=True)
class GradientSummary:
    """Names of the parameters whose gradient is missing, exactly zero or not finite."""

    none: list[str] = field(default_factory=list)
    zero: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, trainable: Mapping[str, nn.Parameter]) -> GradientSummary:
        """Summarise the gradients as they are now. Syncs: one."""
        none = [name for name, p in trainable.items() if p.grad is None]
        there = {name: p.grad for name, p in trainable.items() if p.grad is not None}
        sizes = dict(zip(there, largest(there.values()), strict=True))
        return cls(
            none=none,
            zero=[name for name, value in sizes.items() if value == 0],
            wrong=[name for name, value in sizes.items() if not math.isfinite(value)],
        )

    @property
    def silent(self) -> list[str]:
        """Parameters that learn nothing."""
        return [*self.none, *self.zero]


def largest(tensors: Iterable[Tensor]) -> list[float]:
    """Return the largest magnitude in each tensor. Syncs: one."""
    values = [maximum(t.detach().abs()).float() for t in tensors]
    return torch.stack([v.cpu() for v in values]).tolist() if values else []
