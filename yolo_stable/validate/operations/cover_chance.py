"""Random numbers of each kind, type, size and layout: no block repeats another, no call another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..recipe import Builder, Tensors
from .covering import Row, covered

SIZES = ("1", "7", "130", "1031", "20003", "maps")
_BLOCKS = (64, 128, 256, 512, 1_024, 4_096, 16_384)
"""Numbers after which a generator might begin again."""
_LAGS = (1, 2, 4, 32, 256, 4_096)
_FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class RandomKind:
    """Random numbers of one kind, scaled to a mean and a deviation that are known."""

    draw: Callable[[Tensor], Tensor]
    """Takes an empty tensor, or one of ones, and returns as many random numbers."""
    mean: float
    deviation: float
    low: float
    high: float
    same: float
    """How often two numbers are equal, at most."""


KINDS: dict[str, RandomKind] = {
    "uniform": RandomKind(lambda t: t.uniform_(), 0.5, 0.2887, 0.0, 1.0, 0.0),
    "normal": RandomKind(lambda t: t.normal_(), 0.0, 1.0, -9.0, 9.0, 0.0),
    "span": RandomKind(lambda t: t.uniform_(-0.25, 0.75), 0.25, 0.2887, -0.25, 0.75, 0.0),
    "bernoulli": RandomKind(lambda t: t.bernoulli_(0.4), 0.4, 0.4899, 0.0, 1.0, 0.52),
    "coins": RandomKind(lambda t: torch.bernoulli(torch.full_like(t, 0.3)), 0.3, 0.4583, 0.0, 1.0, 0.58),
    "dropout": RandomKind(
        lambda t: (F.dropout(torch.ones_like(t), 0.5, True) > 0).to(t.dtype), 0.5, 0.5, 0.0, 1.0, 0.5
    ),
    "native": RandomKind(
        lambda t: torch.native_dropout(torch.ones_like(t), 0.4, True)[1].to(t.dtype), 0.6, 0.4899, 0.0, 1.0, 0.52
    ),
    "rand": RandomKind(torch.rand_like, 0.5, 0.2887, 0.0, 1.0, 0.0),
    "randn": RandomKind(torch.randn_like, 0.0, 1.0, -9.0, 9.0, 0.0),
    "whole": RandomKind(lambda t: torch.randint_like(t, 0, 8), 3.5, 2.2913, 0.0, 7.0, 0.125),
    "random": RandomKind(lambda t: t.random_(0, 16), 7.5, 4.6098, 0.0, 15.0, 0.0625),
    "exponential": RandomKind(lambda t: t.exponential_(), 1.0, 1.0, 0.0, 40.0, 0.0),
}


def _holds(kind: RandomKind, t: Tensor, again: Tensor, other: Tensor) -> dict[str, bool]:
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


def _drawn(i: int, row: Row, x: Tensor) -> Tensors:
    kind, dtype = KINDS[row["kind"]], getattr(torch, row["type"])
    shape = (3, 33, 7, 9) if row["size"] == "maps" else (int(row["size"]),)
    empty = torch.empty(shape, dtype=dtype, device=x.device)
    empty = empty.contiguous(memory_format=torch.channels_last) if row["size"] == "maps" else empty
    first, second = (kind.draw(empty.clone().fill_(0)) for _ in range(2))
    return {f"{row['kind']}-{row['type']}": torch.tensor(list(_holds(kind, first, second, empty).values()))}


def _ordered(i: int, row: Row, x: Tensor) -> Tensors:
    size = int(row["size"])
    order, other = (torch.randperm(size, device=x.device).cpu() for _ in range(2))
    said = [bool((order.sort()[0] == torch.arange(size)).all()), size < 130 or not torch.equal(order, other)]
    if size >= 130:
        stay = int((order == torch.arange(size)).sum())
        follow = int((order.diff() == 1).sum())
        half = float((order[: size // 2] < size // 2).double().mean())
        said += [stay <= 14, follow <= 14, abs(half - 0.5) <= 4 * size**-0.5]
    return {"order": torch.tensor(said)}


_ROWS = [{"kind": kind, "type": name, "size": size} for kind in KINDS for name in _FLOATS for size in SIZES]
_ORDERS = [{"size": size} for size in ("1", "2", "7", "130", "1031", "8400", "70001")]
RECIPES: dict[str, Builder] = {
    "cover_chance": covered(lambda draw: {"x": draw("x", 4)}, (_ROWS, _drawn), (_ORDERS, _ordered), scale="none")
}
