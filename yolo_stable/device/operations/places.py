"""Where numbers go: reductions of which one number matters, indices, orders, and what is drawn by chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import Draw
from ..recipe import Recipe, Tensors

MANY = 100_000
"""Elements from which on only the last one is asked for."""
LENGTHS = (1, 31, 33, 255, 257, 1_023, 1_025, 8_400, 65_537, 1_000_003)
ANCHORS = 8_400
"""Of an image of 640 pixels."""

Compute = Callable[..., Tensor | Mapping[str, Tensor]]
Maker = tuple[Callable[[Draw], Tensors], Compute]

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": torch.sum, "norm": torch.linalg.vector_norm, "max": torch.max, "amax": torch.amax, "argmax": torch.argmax,
    "min": lambda x: x.neg().min(), "argmin": lambda x: x.neg().argmin(), "any": lambda x: (x > 0).any(),
    "all": lambda x: (x == 0).all(), "count": torch.count_nonzero, "cumsum": lambda x: x.cumsum(0)[-1],
    "nonzero": lambda x: x.nonzero()[-1, 0], "rows": lambda x: x.view(1, -1).sum(1), "columns": lambda x: x.view(-1, 1).sum(0),
    "foreach": lambda x: torch._foreach_norm([x, x])[1], "dot": lambda x: x @ torch.ones_like(x),
    "mean": lambda x: x.mean() * len(x),
    "topk": lambda x: x.topk(1).indices, "sort": lambda x: x.sort(descending=True).indices[0],
    "cummax": lambda x: x.cummax(0)[0][-1],
}  # fmt: skip
"""Each gives the number itself, or where it is."""


def one_of_many(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return a reduction of zeros of which one, at the first, last or a middle place, is 1: nothing is rounded."""
    reduce = REDUCTIONS[params["name"]]
    places = {
        f"{n}-{at}": (n, at) for n in LENGTHS for at in ({n - 1} if n > MANY else {0, n // 3, max(n - 2, 0), n - 1})
    }
    inputs = {name: F.one_hot(torch.tensor(at), n).double() for name, (n, at) in places.items()}

    def compute(**tensors: Tensor) -> Tensor:
        return torch.cat([reduce(x).reshape(1).float() for x in tensors.values()]).round(
            decimals=3
        )  # a mean is not exact

    return Recipe(inputs=inputs, compute=compute, scale="none")


def _distinct(draw: Draw, rows: int, columns: int) -> Tensor:
    return torch.stack([draw.permutation(f"x{row}", columns) for row in range(rows)]).double() / 8 - columns / 16


def _anchors(draw: Draw) -> Tensors:
    return {"x": _distinct(draw, 4, ANCHORS)}


def _integers(draw: Draw) -> Tensors:
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


def _boxes(draw: Draw) -> Tensors:
    corner, size = draw("corner", 700, 2, low=0, high=80), draw("size", 700, 2, low=2, high=30)
    corner, size = (corner * 8).round() / 8, (size * 8).round() / 8
    return {"boxes": torch.cat([corner, corner + size], 1), "scores": draw.permutation("scores", 700).double() / 700}


def _nms(boxes: Tensor, scores: Tensor) -> Tensors:
    from torchvision.ops import nms

    kind = torch.float32 if boxes.dtype == torch.float64 else boxes.dtype
    return {f"kept{i}": nms(boxes.to(kind), scores.to(kind), limit) for i, limit in enumerate((0.3, 0.7))}


def _whole(a: Tensor, b: Tensor) -> Tensors:
    return {
        "floor": torch.div(a, b, rounding_mode="floor"), "trunc": torch.div(a, b, rounding_mode="trunc"), "remainder": a % b,
        "mul": a * b, "sub": a - b, "and": a & b, "or": a | b, "xor": a ^ b, "shift": a << 3, "lt": a < b,
        "eq": (a % 7) == (b % 7),
        "bool": (a > 0) & (b > 40), "not": ~(a > 0), "sum": a.sum().view(1), "max": a.max().view(1), "clamp": a.clamp(0, 79),
        "bincount": torch.bincount(b, minlength=120), "one_hot": F.one_hot(b % 11, 11), "isin": torch.isin(b, b[:20]),
        "search": torch.searchsorted(b.sort().values, b), "cumprod": (b % 2 + 1)[:40].cumprod(0),
    }  # fmt: skip


def _casts(x: Tensor) -> Tensors:
    return {
        "int64": x.long(), "int32": x.int(), "bool": x.bool(), "uint8": (x.abs() * 0.25).to(torch.uint8), "floor": x.floor(),
        "ceil": x.ceil(), "round": x.round(), "trunc": x.trunc(), "sign": x.sign(), "back": x.long().to(x.dtype),
        "floor_divide": x // 3.0, "frac": x - x.floor(),
    }  # fmt: skip


def _moved(x: Tensor) -> Tensors:
    return {
        "flip": x.flip(-1, -2), "roll": x.roll((1, -2), (2, 3)), "tril": x.tril(), "triu": x.triu(1),
        "stack": torch.stack([x, -x], 2),
        "expand": x[:, :1].expand(-1, 5, -1, -1).contiguous(), "tile": x.repeat(1, 2, 1, 3), "unfold": F.unfold(x, 3, padding=1),
        "shuffle": F.pixel_shuffle(x, 2), "unshuffle": F.pixel_unshuffle(x, 2), "transpose": x.transpose(1, 3).contiguous(),
        "select": x[:, 3], "narrow": x.narrow(2, 2, 5).clone(), "masked": x.masked_select(x > 0),
        "fill": x.masked_fill(x > 0.5, -7.0), "scatter": x.clone().masked_scatter_(x > 0.5, x.flip(0)),
        "index": x[..., [3, 0, 3]],
        "reflect": F.pad(x, (2, 1, 1, 2), mode="reflect"), "take": x.take_along_dim(x.argsort(-1), -1),
        "diagonal": x.diagonal(0, 2, 3).contiguous(), "unbind": x.unbind(1)[5].clone(), "minimum": torch.minimum(x, x.flip(0)),
        "maximum": torch.maximum(x, x.flip(0)), "cummax": x.cummax(3).values, "cummin": x.cummin(2).values,
    }  # fmt: skip


def _made(x: Tensor) -> Tensors:
    rows, columns = torch.arange(33, device=x.device), torch.arange(19, device=x.device)
    y, z = torch.meshgrid(rows, columns, indexing="ij")
    return {
        "arange": torch.arange(0.5, 80, dtype=x.dtype, device=x.device), "y": y.contiguous(), "z": z.contiguous(),
        "eye": torch.eye(17, dtype=x.dtype, device=x.device), "zeros": torch.zeros(1001, dtype=x.dtype, device=x.device),
        "ones": torch.ones_like(x), "full": torch.full((77,), 0.25, dtype=x.dtype, device=x.device),
        "linspace": torch.linspace(0, 64, 129, dtype=x.dtype, device=x.device),
    }  # fmt: skip


EXACT: dict[str, Maker] = {
    "topk_anchors": (_anchors, _topk),
    "sort_anchors": (_anchors, _sort),
    "argmax_anchors": (_anchors, lambda x: {"argmax": x.argmax(-1), "max": x.max(-1).values, "at": x.min(-1).indices}),
    "nms": (_boxes, _nms),
    "whole_numbers": (_integers, _whole),
    "casts": (lambda draw: {"x": (draw("x", 3001, low=-500, high=500) * 16).round() / 16}, _casts),
    "moved": (lambda draw: {"x": draw("x", 2, 12, 10, 14).float().double()}, _moved),
    "made": (lambda draw: {"x": draw("x", 9).float().double()}, _made),
}  # fmt: skip


def _exact(name: str) -> Callable[[Mapping[str, Any], Draw], Recipe]:
    make, compute = EXACT[name]
    return lambda params, draw: Recipe(inputs=make(draw), compute=compute, scale="none")


def _near(value: Tensor, expected: float, deviation: float) -> Tensor:
    """Return whether a mean is within six deviations: one in 500 million is not."""
    return (value - expected).abs().view(1) <= 6 * deviation


def chance(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return what must hold of numbers that a device draws, whatever they are."""
    count = 100_003

    def compute(x: Tensor) -> Tensors:
        uniform, normal = torch.rand(count, device=x.device), torch.randn(count, device=x.device)
        whole, order = torch.randint(3, 10, (count,), device=x.device), torch.randperm(count, device=x.device)
        ones = torch.ones(count, device=x.device)
        dropped, coin = F.dropout(ones, 0.3, training=True), torch.bernoulli(torch.full_like(ones, 0.25))
        root = count**-0.5
        other = torch.rand(count, device=x.device)
        return {
            "uniform_range": ((uniform >= 0) & (uniform < 1)).all().view(1),
            "uniform_mean": _near(uniform.mean(), 0.5, 0.2887 * root),
            "uniform_tail": (uniform[-64:] != uniform[:64]).any().view(1) & (uniform[-64:].std() > 0.1).view(1),
            "other_numbers": (uniform != other).any().view(1),
            "normal_mean": _near(normal.mean(), 0.0, root),
            "normal_square": _near(normal.square().mean(), 1.0, 1.4143 * root),
            "normal_tail": (normal[-64:].std() > 0.3).view(1),
            "whole_range": (whole.min() == 3).view(1) & (whole.max() == 9).view(1),
            "whole_mean": _near(whole.float().mean(), 6.0, 2 * root),
            "order": (order.sort().values == torch.arange(count, device=x.device)).all().view(1),
            "order_moves": (order != torch.arange(count, device=x.device)).float().mean().view(1) > 0.99,
            "dropped_values": ((dropped == 0) | ((dropped - 1 / 0.7).abs() < 1e-5)).all().view(1),
            "dropped_share": _near((dropped == 0).float().mean(), 0.3, 0.4583 * root),
            "dropped_mean": _near(dropped.mean(), 1.0, 0.6547 * root),
            "not_in_evaluation": (F.dropout(ones, 0.3, training=False) == 1).all().view(1),
            "coin": _near(coin.mean(), 0.25, 0.433 * root),
            "independent": _near((uniform[1:] - 0.5).mul(uniform[:-1] - 0.5).mean(), 0.0, root / 12),
        }

    return Recipe(inputs={"x": draw("x", 4)}, compute=compute, scale="none")


def dropout_backward(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return whether dropout's gradient is lost exactly where its result is."""

    def compute(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            out = F.dropout(x, 0.4, training=True)
            (gradient,) = torch.autograd.grad(out.sum(), x)
        return ((out == 0) == (gradient == 0)).all().view(1) & ((out - x * gradient).abs().max() < 1e-5).view(1)

    return Recipe(inputs={"x": draw("x", 30_011, low=0.5)}, compute=compute, scale="none")


RECIPES: dict[str, Callable[[Mapping[str, Any], Draw], Recipe]] = {
    **{name: _exact(name) for name in EXACT},
    "one_of_many": one_of_many,
    "chance": chance,
    "dropout_backward": dropout_backward,
}
