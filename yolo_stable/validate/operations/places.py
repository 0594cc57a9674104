"""Places of numbers: reductions in which one number matters, indices and orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors, unrounded

MANY = 100_000
"""With more elements, only the last place is tried."""
LENGTHS = (1, 31, 33, 255, 257, 1_023, 1_025, 8_400, 65_537, 1_000_003)
ANCHORS = 8_400
"""Of an image of 640 pixels."""

Compute = Callable[..., Tensor | Mapping[str, Tensor]]
Maker = tuple[Callable[[HashedDraw], Tensors], Compute]

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": torch.sum,
    "norm": torch.linalg.vector_norm,
    "max": torch.max,
    "amax": torch.amax,
    "argmax": torch.argmax,
    "min": lambda x: x.neg().min(),
    "argmin": lambda x: x.neg().argmin(),
    "any": lambda x: (x > 0).any(),
    "all": lambda x: (x == 0).all(),
    "count": torch.count_nonzero,
    "cumsum": lambda x: x.cumsum(0)[-1],
    "nonzero": lambda x: x.nonzero()[-1, 0],
    "rows": lambda x: x.view(1, -1).sum(1),
    "columns": lambda x: x.view(-1, 1).sum(0),
    "foreach": lambda x: torch._foreach_norm([x, x])[1],
    "dot": lambda x: x @ torch.ones_like(x),
    "mean": lambda x: x.mean() * len(x),
    "topk": lambda x: x.topk(1).indices,
    "sort": lambda x: x.sort(descending=True).indices[0],
    "cummax": lambda x: x.cummax(0)[0][-1],
}
"""Each gives the number itself, or where it is."""


def one_of_many(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a reduction of zeros with one 1, at the first, the last or a middle place: nothing is rounded."""
    reduce = REDUCTIONS[params["name"]]
    places = {
        f"{n}-{at}": (n, at) for n in LENGTHS for at in ({n - 1} if n > MANY else {0, n // 3, max(n - 2, 0), n - 1})
    }
    inputs = {name: F.one_hot(torch.tensor(at), n).double() for name, (n, at) in places.items()}

    def compute(*tensors: Tensor) -> Tensor:
        found = torch.cat([reduce(x).reshape(1).float() for x in tensors])
        return found.round(decimals=3)  # a mean is not exact

    return Recipe(inputs=inputs, compute=compute, scale="none")


def _anchors(draw: HashedDraw) -> Tensors:
    return {"x": draw.distinct("x", 4, ANCHORS)}


def _integers(draw: HashedDraw) -> Tensors:
    return {"a": draw.integers("a", 3001, below=1_000_003) - 500_000, "b": draw.integers("b", 3001, below=97) + 1}


def _topk(x: Tensor) -> Tensors:
    found = {}
    for k in (1, 10, 13, 300):
        found[f"values{k}"], found[f"indices{k}"] = x.topk(k, dim=-1)
    found["smallest"], found["smallest_at"] = x.topk(10, dim=-1, largest=False)
    return found


def _sort(x: Tensor) -> Tensors:
    down, down_at = x.sort(-1, descending=True)
    up, up_at = x.sort(-1)
    stable = x.div(100).floor().sort(dim=-1, stable=True, descending=True).indices
    return {
        "down": down,
        "down_at": down_at,
        "up": up,
        "up_at": up_at,
        "argsort": x.argsort(-1, descending=True),
        "stable": stable,
    }


def _boxes(draw: HashedDraw) -> Tensors:
    corner, size = draw("corner", 700, 2, low=0, high=80), draw("size", 700, 2, low=2, high=30)
    corner, size = (corner * 8).round() / 8, (size * 8).round() / 8
    return {"boxes": torch.cat([corner, corner + size], 1), "scores": draw.permutation("scores", 700).double() / 700}


@cache
def _suppression() -> Callable[..., Tensor]:
    """Return torchvision's kernel; the package itself, which takes seconds to import, only where its library is not found."""
    found = find_spec("torchvision")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for library in sorted(Path(folder).glob("_C*")):
            torch.ops.load_library(str(library))
            return torch.ops.torchvision.nms
    from torchvision.ops import nms

    return nms


def _nms(boxes: Tensor, scores: Tensor) -> Tensors:
    kind = torch.float32 if boxes.dtype == torch.float64 else boxes.dtype
    suppress = _suppression()
    apart = (
        boxes + (torch.arange(len(boxes), device=boxes.device) % 3 * 26 * 7_680)[:, None]
    )  # classes, as Ultralytics holds them apart
    return {
        f"{name}{i}": suppress(placed.to(kind), scores[: len(placed)].to(kind), limit)
        for name, placed in (("kept", boxes), ("apart", apart), ("one", boxes[:1]), ("few", boxes[:33]))
        for i, limit in enumerate((0.3, 0.7))
    }


def _whole(a: Tensor, b: Tensor) -> Tensors:
    return {
        "floor": torch.div(a, b, rounding_mode="floor"),
        "trunc": torch.div(a, b, rounding_mode="trunc"),
        "remainder": a % b,
        "mul": a * b,
        "sub": a - b,
        "and": a & b,
        "or": a | b,
        "xor": a ^ b,
        "shift": a << 3,
        "lt": a < b,
        "eq": (a % 7) == (b % 7),
        "bool": (a > 0) & (b > 40),
        "not": ~(a > 0),
        "sum": a.sum().view(1),
        "max": a.max().view(1),
        "clamp": a.clamp(0, 79),
        "bincount": torch.bincount(b, minlength=120),
        "one_hot": F.one_hot(b % 11, 11),
        "isin": torch.isin(b, b[:20]),
        "search": torch.searchsorted(b.sort().values, b),
        "cumprod": (b % 2 + 1)[:40].cumprod(0),
    }


def _casts(x: Tensor) -> Tensors:
    return {
        "int64": x.long(),
        "int32": x.int(),
        "bool": x.bool(),
        "uint8": (x.abs() * 0.25).to(torch.uint8),
        "floor": x.floor(),
        "ceil": x.ceil(),
        "round": x.round(),
        "trunc": x.trunc(),
        "sign": x.sign(),
        "back": x.long().to(x.dtype),
        "floor_divide": x // 3.0,
        "frac": x - x.floor(),
    }


def _moved(x: Tensor) -> Tensors:
    return {
        "flip": x.flip(-1, -2),
        "roll": x.roll((1, -2), (2, 3)),
        "tril": x.tril(),
        "triu": x.triu(1),
        "stack": torch.stack([x, -x], 2),
        "expand": x[:, :1].expand(-1, 5, -1, -1).contiguous(),
        "tile": x.repeat(1, 2, 1, 3),
        "unfold": F.unfold(x, 3, padding=1),
        "shuffle": F.pixel_shuffle(x, 2),
        "unshuffle": F.pixel_unshuffle(x, 2),
        "transpose": x.transpose(1, 3).contiguous(),
        "select": x[:, 3],
        "narrow": x.narrow(2, 2, 5).clone(),
        "masked": x.masked_select(x > 0),
        "fill": x.masked_fill(x > 0.5, -7.0),
        "scatter": x.clone().masked_scatter_(x > 0.5, x.flip(0)),
        "index": x[..., [3, 0, 3]],
        "reflect": F.pad(x, (2, 1, 1, 2), mode="reflect"),
        "take": x.take_along_dim(x.argsort(-1), -1),
        "diagonal": x.diagonal(0, 2, 3).contiguous(),
        "unbind": x.unbind(1)[5].clone(),
        "minimum": torch.minimum(x, x.flip(0)),
        "maximum": torch.maximum(x, x.flip(0)),
        "cummax": x.cummax(3).values,
        "cummin": x.cummin(2).values,
    }


def _made(x: Tensor) -> Tensors:
    rows, columns = torch.arange(33, device=x.device), torch.arange(19, device=x.device)
    y, z = torch.meshgrid(rows, columns, indexing="ij")
    return {
        "arange": torch.arange(0.5, 80, dtype=x.dtype, device=x.device),
        "long": torch.arange(0.5, 1_601, dtype=x.dtype, device=x.device),
        "steps": torch.arange(0, 1_601, 0.25, dtype=x.dtype, device=x.device),
        "counted": torch.arange(70_001, device=x.device),
        "y": y.contiguous(),
        "z": z.contiguous(),
        "eye": torch.eye(17, dtype=x.dtype, device=x.device),
        "zeros": torch.zeros(1001, dtype=x.dtype, device=x.device),
        "ones": torch.ones_like(x),
        "full": torch.full((77,), 0.25, dtype=x.dtype, device=x.device),
        "linspace": torch.linspace(0, 64, 129, dtype=x.dtype, device=x.device),
    }


def _few(draw: HashedDraw) -> Tensors:
    """Return whole numbers that every floating type holds, all different in a row, and indices."""
    x = torch.stack([draw.permutation(f"x{row}", 201) for row in range(6)]).double() - 100
    return {"x": x, "order": draw.permutation("order", 201), "at": draw.integers("at", 6, 50, below=201)}


def _orders(x: Tensor, order: Tensor, at: Tensor) -> Tensors:
    mask = x > 3
    values, indices = x.topk(7, dim=-1)
    pair, pair_at = x[:, :9].reshape(6, 3, 3).max(1)
    down, down_at = x.sort(-1, descending=True)
    up, up_at = x.sort(-1)
    put = torch.full_like(x, -3.0)
    put[:, order] = x
    marked = x.clone()
    marked[mask] = 7.0
    seen, inverse, counts = (at % 7).unique(return_inverse=True, return_counts=True)
    return {
        "topk": values,
        "topk_at": indices,
        "down": down,
        "down_at": down_at,
        "up": up,
        "up_at": up_at,
        "put": put,
        "marked": marked,
        "argmax": x.argmax(-1),
        "argmin": x.argmin(-1),
        "first": x.argmax(0),
        "pair": pair,
        "pair_at": pair_at,
        "gather": x.gather(1, at),
        "expanded": x.gather(0, torch.tensor([[4], [1], [5]], device=x.device).expand(-1, 9)),
        "mask": x[mask],
        "taken": x[:, order],
        "pairs": x[[0, 3, 5, 1], [200, 4, 2, 9]],
        "square": x[:6, :6][[0, 3, 5, 1], [5, 4, 2, 0]],
        "rows": x.index_select(0, order[:9] % 6),
        "selected": x.masked_select(mask),
        "nonzero": mask.nonzero(),
        "flipped": mask.t().nonzero(),
        "where": torch.where(mask, x, -x),
        "wide": torch.where(mask[:, :1], x, -x),
        "fill": x.masked_fill(mask[:1], -7.0),
        "in_place": x.clone().masked_fill_(mask[:, :1], -7.0),
        "tail": x.masked_fill(order == order[-1], -9.0),
        "count": mask.sum(1),
        "any": mask.any(0),
        "all": (x > -99).all(1),
        "and": mask & mask[:1],
        "or": mask | mask[:1],
        "xor": mask ^ mask[:1],
        "not": ~mask,
        "logical": mask.logical_and(mask[:1]),
        "absent": mask.logical_not(),
        "seen": seen,
        "inverse": inverse,
        "counts": counts,
        "bins": torch.bincount(at.view(-1)),
        "triu": x[:, :6].triu(1),
        "tril": x[:, :6].tril(-2),
        "one_hot": x.new_zeros(6, 201).scatter_(1, at[:, :1], 1.0),
        "scatter": x.new_zeros(6, 201).scatter(1, order.expand(6, -1), x),
        "reduce": x.new_zeros(6, 201).scatter_reduce(1, at, x[:, :50], "amax"),
        "repeat": x.repeat(2, 3),
        "each": x.repeat_interleave(3, 1),
        "flip": x.flip(-1),
        "turned": x.t().contiguous(),
        "expand": x[:1].expand(4, -1).contiguous(),
        "cat": torch.cat([x, x[:, 3:], x[:, :5], x[:, :1], x], 1),
        "stack": torch.stack([x, -x], -1),
        "mixed": torch.cat([x, x[:2].float()]),
        "part": F.pad(x, (1, 0), value=2.0)[:, ::2].contiguous(),
        "abs": x.abs(),
        "sign": x.sign(),
        "neg": -x,
        "ge": x >= x[0],
        "le": x <= x[:, :1],
        "gt": x > 2.5,
        "lt": x < -2.5,
        "eq": x == x.flip(0),
        "ne": x != 4,
        "max": torch.maximum(x, -x),
        "min": torch.minimum(x, x.flip(1)),
        "clamp": x.clamp(-5, 9),
        "long": (x / 4).long(),
        "int": (x / 4).int(),
        "floor": (x / 4).floor(),
        "round": (x / 4).round(),
        "trunc": (x / 4).trunc(),
        "ceil": (x / 4).ceil(),
        "half": (x / 256).bool(),
        "remainder": x % 7,
        "add": x.new_zeros(7).index_add(0, order[:5] % 7, x[0, :5]),
        "prod": (x[:, :2] % 7).prod(1),
        "byte": (x + 155).to(torch.uint8).to(x.dtype),
        "whole": at.to(x.dtype),
        "fmod": torch.fmod(x, 7.0),
    }


def _counters(a: Tensor, b: Tensor) -> Tensors:
    """Whole numbers beyond what 16 or 24 bits hold, multiples where a division is exact, and their comparisons."""
    large = a.to(torch.int64) * 4_194_301 + b
    near = torch.arange(2_040, 2_060, device=a.device)
    return {
        "mul": b * 1_003,
        "add": large + 1,
        "add_": large.clone().add_(b),
        "sub": large - b,
        "sum": large.sum().view(1),
        "rows": a[:3_000].view(60, 50).sum(1),
        "multiple": (b * 80 * 31) // 80,
        "exact": torch.div(b * 7_919, 7_919, rounding_mode="floor"),
        "negative": (-b * 97) // 97,
        "remainder": -b % 97,
        "fmod": torch.fmod(-b, 97),
        "equal": near[:, None] == near[None],
        "unequal": near[:, None] != near[None],
        "less": near[:, None] < near[None],
        "same": large == large.flip(0),
        "top": large.max().view(1),
        "argmax": large.argmax().view(1),
        "ones": (a > 0).sum().view(1),
        "count": (b[:1_500].view(5, 300) > 9).sum(1),
        "nonzero": torch.count_nonzero(a > 0).view(1),
        "cumsum": large.cumsum(0),
        "mask_cumsum": (a > 0).cumsum(0),
        "float": b.float() * 0 + (b * 90_001 % 16_000_000).float(),
        "int": a.int() * 3,
        "ge": b >= b.flip(0),
        "byte": torch.arange(256, dtype=torch.uint8, device=a.device).float(),
        "short": a.clamp(-3e4, 3e4).to(torch.int16).long(),
        "signs": a.sign(),
        "back": large.double().long(),
        "any": torch.stack([(b == b[i]).any() for i in (0, 1_500, 3_000)]),
        "min": torch.minimum(a, b),
        "clamp": a.clamp(0, 79),
        "where": torch.where(a > 0, a, b),
        "even": b % 2 == 0,
        "shift": b >> 2,
    }


EXACT: dict[str, Maker] = {
    "orders": (_few, _orders),
    "counters": (_integers, _counters),
    "topk_anchors": (_anchors, _topk),
    "sort_anchors": (_anchors, _sort),
    "argmax_anchors": (_anchors, lambda x: {"argmax": x.argmax(-1), "max": x.max(-1).values, "at": x.min(-1).indices}),
    "nms": (_boxes, _nms),
    "whole_numbers": (_integers, _whole),
    "casts": (lambda draw: {"x": (draw("x", 3001, low=-500, high=500) * 16).round() / 16}, _casts),
    "moved": (lambda draw: {"x": draw("x", 2, 12, 10, 14).float().double()}, _moved),
    "made": (lambda draw: {"x": draw("x", 9).float().double()}, _made),
}


RECIPES: dict[str, Builder] = {
    **{name: unrounded(*maker) for name, maker in EXACT.items()},
    "one_of_many": one_of_many,
}
