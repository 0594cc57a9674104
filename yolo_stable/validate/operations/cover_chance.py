"""What must hold of random numbers of each kind, type, size and layout: no block repeats another, no call another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import Draw
from ..recipe import Recipe, Tensors

SIZES = (1, 7, 130, 1_031, 20_003)
_BLOCKS = (64, 128, 256, 512, 1_024, 4_096, 16_384)
"""Numbers after which a generator might begin again."""
_LAGS = (1, 2, 4, 32, 256, 4_096)
_FLOATS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Kind:
    """Random numbers of one kind, scaled to a mean and a deviation that are known."""

    draw: Callable[[Tensor], Tensor]
    """Takes an empty tensor, or one of ones, and returns as many random numbers."""
    mean: float
    deviation: float
    low: float
    high: float
    same: float
    """How often two numbers are equal, at most."""


KINDS: dict[str, Kind] = {
    "uniform": Kind(lambda t: t.uniform_(), 0.5, 0.2887, 0.0, 1.0, 0.0),
    "normal": Kind(lambda t: t.normal_(), 0.0, 1.0, -9.0, 9.0, 0.0),
    "span": Kind(lambda t: t.uniform_(-0.25, 0.75), 0.25, 0.2887, -0.25, 0.75, 0.0),
    "bernoulli": Kind(lambda t: t.bernoulli_(0.4), 0.4, 0.4899, 0.0, 1.0, 0.52),
    "coins": Kind(lambda t: torch.bernoulli(torch.full_like(t, 0.3)), 0.3, 0.4583, 0.0, 1.0, 0.58),
    "dropout": Kind(lambda t: (F.dropout(torch.ones_like(t), 0.5, True) > 0).to(t.dtype), 0.5, 0.5, 0.0, 1.0, 0.5),
    "native": Kind(
        lambda t: torch.native_dropout(torch.ones_like(t), 0.4, True)[1].to(t.dtype), 0.6, 0.4899, 0.0, 1.0, 0.52
    ),
    "rand": Kind(torch.rand_like, 0.5, 0.2887, 0.0, 1.0, 0.0),
    "randn": Kind(torch.randn_like, 0.0, 1.0, -9.0, 9.0, 0.0),
    "whole": Kind(lambda t: torch.randint_like(t, 0, 8), 3.5, 2.2913, 0.0, 7.0, 0.125),
    "random": Kind(lambda t: t.random_(0, 16), 7.5, 4.6098, 0.0, 15.0, 0.0625),
    "exponential": Kind(lambda t: t.exponential_(), 1.0, 1.0, 0.0, 40.0, 0.0),
}


def _holds(kind: Kind, t: Tensor, again: Tensor, other: Tensor) -> dict[str, bool]:
    """Return what is to hold; each is missed by chance once in 500 million times at most."""
    n = t.numel()
    x, y = t.double().flatten().cpu(), again.double().flatten().cpu()
    said = {"range": bool(((x >= kind.low) & (x <= kind.high)).all()), "shape": t.shape == other.shape}
    same = kind.same + (0.02 if kind.same == 0 else 0.0)  # 16-bit numbers meet now and then
    wide = 6 * (max(same * (1 - same), 1e-4)) ** 0.5
    if n >= 130:
        said["calls"] = not torch.equal(x, y)
        said["differ"] = float((x == y).double().mean()) <= same + wide * n**-0.5
        for lag in (lag for lag in _LAGS if lag <= n - 64):
            said[f"lag{lag}"] = float((x[lag:] == x[:-lag]).double().mean()) <= same + 2 * wide * (n - lag) ** -0.5
        for block in (block for block in _BLOCKS if 2 * block <= n):
            for name, z in (("first", x), ("last", x.flip(0))):
                said[f"{name}{block}"] = not torch.equal(z[:block], z[block : 2 * block])
    if n >= 513:
        third = n // 3
        for name, part in (("whole", x), ("start", x[:third]), ("middle", x[third : 2 * third]), ("end", x[-third:])):
            said[f"mean-{name}"] = abs(float(part.mean()) - kind.mean) <= 7 * kind.deviation * len(part) ** -0.5
            spread = float((part - kind.mean).square().mean()) / kind.deviation**2
            said[f"spread-{name}"] = abs(spread - 1) <= 20 * len(part) ** -0.5 + 0.02
        centred = x - kind.mean
        for lag in (1, 2, 4):
            said[f"related{lag}"] = (
                abs(float((centred[lag:] * centred[:-lag]).mean())) <= 7 * kind.deviation**2 * (n - lag) ** -0.5
            )
    return said


def blocks(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return what must hold of what a device draws, for each kind, type and size, and in channels_last."""

    def compute(x: Tensor) -> Tensors:
        found: Tensors = {}
        for name, kind in KINDS.items():
            for type_name, dtype in _FLOATS.items():
                for size in SIZES:
                    said = _pair(kind, torch.empty(size, dtype=dtype, device=x.device))
                    found[f"{name}-{type_name}|{size}"] = torch.tensor(list(said.values()))
                maps = torch.empty(3, 33, 7, 9, dtype=dtype, device=x.device).contiguous(
                    memory_format=torch.channels_last
                )
                found[f"{name}-{type_name}|maps"] = torch.tensor(list(_pair(kind, maps).values()))
        for size in (1, 2, 7, 130, 1_031, 8_400, 70_001):
            order, other = torch.randperm(size, device=x.device).cpu(), torch.randperm(size, device=x.device).cpu()
            said = [bool((order.sort()[0] == torch.arange(size)).all()), size < 130 or not torch.equal(order, other)]
            if size >= 130:
                stay = int((order == torch.arange(size)).sum())
                follow = int((order.diff() == 1).sum())
                half = float((order[: size // 2] < size // 2).double().mean())
                said += [stay <= 14, follow <= 14, abs(half - 0.5) <= 4 * size**-0.5]
            found[f"order|{size}"] = torch.tensor(said)
        return found

    return Recipe(inputs={"x": draw("x", 4)}, compute=compute, scale="none", packed=True)


def _pair(kind: Kind, empty: Tensor) -> dict[str, bool]:
    first = kind.draw(empty.clone().fill_(0))
    second = kind.draw(empty.clone().fill_(0))
    return _holds(kind, first, second, empty)


RECIPES: dict[str, Callable[[Mapping[str, Any], Draw], Recipe]] = {"cover_chance": blocks}
