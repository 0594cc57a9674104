"""Operations of the exact family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors, unrounded
from . import chance, cover_chance, cover_copies, cover_places, cover_sums, cover_whole, large, places, special
from .passing import passes_on

_NAN, _INF = float("nan"), float("inf")


def _images(draw: HashedDraw) -> Tensors:
    return {"x": draw("x", 2, 12, 10, 14).float().double()}


def _negative_images(draw: HashedDraw) -> Tensors:
    return {"x": _images(draw)["x"] - 2.0}  # padding with anything but minus infinity shows


Maker = tuple[Callable[[HashedDraw], Tensors], Callable[..., Tensor | Mapping[str, Tensor]]]


def _scatter_add(index: Tensor) -> Tensor:
    return torch.zeros(4, 97, dtype=torch.int8, device=index.device).scatter_add_(
        1, index, torch.ones_like(index, dtype=torch.int8)
    )


def _one_hot(index: Tensor) -> Tensor:
    return torch.zeros(4, 300, 97, dtype=torch.int64, device=index.device).scatter_(2, index.unsqueeze(-1), 1)


def _ordered(found: tuple[Tensor, Tensor]) -> Tensors:
    return {"values": found[0], "indices": found[1]}


def _topk_ties(x: Tensor) -> Tensors:
    values, indices = torch.floor(x).topk(10, dim=-1)
    valid = (indices >= 0) & (indices < x.shape[-1])
    different = indices.sort(-1).values.diff(dim=-1) > 0
    taken = torch.floor(x).gather(-1, indices.clamp(0, x.shape[-1] - 1))
    return {"values": values, "taken": taken, "valid": valid, "different": different}


def _unique(index: Tensor) -> Tensors:
    values, counts = index.unique(return_counts=True)
    return {"values": values, "counts": counts}


def _amax(x: Tensor) -> Tensors:
    return {"amax": x.amax(-1), "amin": x.amin(-1), "max0": x.max(0).values, "any": (x > 0).any(-1)}


def _index_put(x: Tensor, order: Tensor) -> Tensor:
    out = torch.full_like(x, -1.0)
    out[:, order] = x
    return out


def _where(x: Tensor) -> Tensors:
    return {"where": torch.where(x > 0.5, x, -x), "eq": x == x.flip(-1), "ge": x >= 0, "and": (x > -1) & (x < 1)}


def _concat(x: Tensor) -> Tensor:
    return torch.cat([x, x[:, :5], x[:, 3:4]], 1)


def _slice(x: Tensor) -> Tensors:
    a, b = x.chunk(2, 1)
    return {
        "chunk": a.clone(),
        "rest": b.contiguous(),
        "strided": x[:, ::3, 1::2, 2::3].clone(),
        "split": x.split((4, 8), 1)[1].clone(),
    }


def _memory_format(x: Tensor) -> Tensors:
    return {
        "to_last": x.contiguous(memory_format=torch.channels_last),
        "to_first": x.contiguous(memory_format=torch.channels_last).contiguous(),
    }


EXACT: dict[str, Maker] = {
    "scatter_add_int8": (lambda draw: {"index": draw.integers("index", 4, 500, below=97)}, _scatter_add),
    "scatter_one_hot": (lambda draw: {"index": draw.integers("index", 4, 300, below=97)}, _one_hot),
    "gather": (
        lambda draw: {"x": draw.distinct("x", 6, 400), "index": draw.integers("index", 6, 900, below=400)},
        lambda x, index: x.gather(1, index),
    ),
    "index_select": (
        lambda draw: {"x": draw.distinct("x", 60, 33), "index": draw.integers("index", 200, below=60)},
        lambda x, index: {"select": x.index_select(0, index), "take": x[index]},
    ),
    "index_put": (lambda draw: {"x": draw.distinct("x", 5, 401), "order": draw.permutation("order", 401)}, _index_put),
    "argmax": (
        lambda draw: {"x": draw.distinct("x", 20, 1000)},
        lambda x: {"argmax": x.argmax(-1), "argmin": x.argmin(-1), "rows": x.argmax(0), "all": x[0].argmax()},
    ),
    "amax": (lambda draw: {"x": draw.distinct("x", 20, 1000)}, _amax),
    "topk": (lambda draw: {"x": draw.distinct("x", 20, 1000)}, lambda x: _ordered(x.topk(10, dim=-1))),
    "topk_ties": (lambda draw: {"x": draw("x", 20, 500, low=0, high=9)}, _topk_ties),
    "sort": (lambda draw: {"x": draw.distinct("x", 6, 2000)}, lambda x: _ordered(x.sort(-1))),
    "unique": (lambda draw: {"index": draw.integers("index", 5000, below=700)}, _unique),
    "nonzero": (lambda draw: {"x": draw("x", 30, 211)}, lambda x: (x > 0.7).nonzero()),
    "boolean_index": (lambda draw: {"x": draw.distinct("x", 30, 211)}, lambda x: x[x > 3]),
    "repeat_interleave": (lambda draw: {"x": draw.distinct("x", 3, 90), "times": draw.integers("t", 90, below=5)},
                          lambda x, times: x.repeat_interleave(times, dim=1)),
    "cumsum_int": (lambda draw: {"index": draw.integers("index", 7, 3000, below=9)}, lambda index: index.cumsum(1)),
    "where_compare": (lambda draw: {"x": draw.distinct("x", 20, 333)}, _where),
    "concat": (_images, _concat),
    "slice": (_images, _slice),
    "pad": (_images, lambda x: F.pad(x, (1, 2, 3, 0), value=0.5)),
    "memory_format": (_images, _memory_format),
    "upsample_nearest": (_images, lambda x: F.interpolate(x, scale_factor=2, mode="nearest")),
    "maxpool": (_negative_images, lambda x: F.max_pool2d(x, 5, 1, 2)),
    "round_trip_permute": (_images, lambda x: x.permute(0, 2, 3, 1).contiguous().flatten(1, 2).transpose(1, 2).contiguous()),
}  # fmt: skip


def _special(shape: tuple[int, ...]) -> Tensor:
    """Return numbers among which are NaN, both infinities and both zeros, each at several places."""
    values = torch.tensor([1.5, _NAN, -2.0, _INF, 0.0, -_INF, 0.5, -0.0, 3.0, -1.0, 2.5], dtype=torch.float64)
    count = torch.Size(shape).numel()
    return values.repeat(count // len(values) + 1)[:count].reshape(shape)


def _batch_norm(x: Tensor) -> Tensor:
    channels = x.shape[1]
    return F.batch_norm(x, x.new_zeros(channels), x.new_ones(channels), None, None, True)


SEMANTICS: dict[str, Callable[[Tensor], Tensor | Mapping[str, Tensor]]] = {
    "clamp": lambda x: {"both": x.clamp(-1, 1), "low": x.clamp(min=0), "high": x.clamp(max=2)},
    "clamp_min": lambda x: {"clamp_min": x.clamp_min(0.1), "in_place": x.clone().clamp_(min=1e-7)},
    "minimum": lambda x: torch.minimum(x, torch.ones_like(x)),
    "maximum": lambda x: torch.maximum(x, torch.ones_like(x)),
    "relu": torch.relu,
    "silu": lambda x: F.silu(x),
    "sigmoid": torch.sigmoid,
    "maxpool": lambda x: F.max_pool2d(x, 3, 1, 1),
    "amax": lambda x: {"amax": x.amax(-1), "max": x.max()},
    "sum": lambda x: {"sum": x.sum(-1), "mean": x.mean(-1)},
    "topk": lambda x: x.flatten(1).topk(5).values,
    "batch_norm": _batch_norm,
    "arithmetic": lambda x: {"minus": x - x, "times": x * 0.0, "divide": x / x, "by_zero": 1.0 / x},
    "predicates": lambda x: {name: getattr(torch, name)(x) for name in ("isfinite", "isinf", "is" + "nan")},
    "matmul": lambda x: x.flatten(1) @ torch.ones(x[0].numel(), 3, dtype=x.dtype, device=x.device),
    "conv": lambda x: F.conv2d(x, torch.ones(2, x.shape[1], 1, 1, dtype=x.dtype, device=x.device)),
    "where": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
}
"""By name; each takes a tensor of shape (4, 3, 5, 7) whose first images have special numbers."""


def semantics(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return an operation on NaN and infinities: what is finite must be finite, and what is not must not."""
    x = draw("x", 4, 3, 5, 7)
    if params["name"] == "batch_norm":
        x[1, 1, 2, 3] = _NAN  # one channel is lost, the others are not
    elif params["name"] in ("matmul", "conv"):
        x[1, 0, 0, 1], x[2, 1, 2, 2] = _NAN, _INF
    else:
        x[:2] = _special((2, 3, 5, 7))
    return Recipe(inputs={"x": x}, compute=SEMANTICS[params["name"]], scale="none")


RECIPES: dict[str, Builder] = {
    **{name: unrounded(*maker) for name, maker in EXACT.items()},
    "semantics": semantics,
    "passes_on": passes_on,
    **places.RECIPES,
    **chance.RECIPES,
    **special.RECIPES,
    **large.RECIPES,
    **cover_chance.RECIPES,
    **cover_copies.RECIPES,
    **cover_places.RECIPES,
    **cover_sums.RECIPES,
    **cover_whole.RECIPES,
}
