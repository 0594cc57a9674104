"""Operations at the sizes of real training: millions of elements, tens of thousands of rows, thousands of planes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors, value_and_gradients
from .arranging import tiled

PERIOD = 70_001
"""Drawn numbers; larger tensors repeat them. No kernel counts in a divisor of it."""
MILLIONS = (2, 16, 129, 258)
"""More than 2^20 elements, and no side is a multiple of 4 but the channels."""
ROWS = 70_001
"""More than 2^16."""
SHOWN = 1 << 14
"""Elements up to which all are compared."""
PLANES = (17, 260, 5, 6)
"""Images times channels is more than 2^12."""

Compute = Callable[[Tensor], Tensors]


def ends(tensor: Tensor) -> Tensor:
    """Return the first, the last, and some of the elements between: the whole would take long to compare."""
    flat = tensor.detach().reshape(-1)
    return flat if len(flat) <= SHOWN else torch.cat([flat[:2_049], flat[-8_193:], flat[:: len(flat) // 4_099]])


def backward(function: Callable[..., Tensor], *inputs: Tensor) -> Tensors:
    """Return the result and the gradients by all inputs, for a gradient that differs from place to place."""

    def upstream(out: Tensor) -> Tensor:
        return tiled(torch.linspace(-1, 1, 4_099, dtype=torch.float64, device=out.device).to(out.dtype), *out.shape)

    out, *gradients = value_and_gradients(function, *inputs, upstream=upstream)
    return {"out": ends(out), **{f"grad{i}": ends(g) for i, g in enumerate(gradients)}}


def _named(**parts: Tensors) -> Tensors:
    return {f"{name}-{part}": t for name, found in parts.items() for part, t in found.items()}


def _in_place(function: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    out = x.clone()
    function(out)
    return ends(out)


def _pointwise(x: Tensor) -> Tensors:
    a = tiled(x, *MILLIONS) * 4
    b = tiled(x.roll(1), *MILLIONS) + 2
    return {
        name: ends(t)
        for name, t in {
            "add": a + b,
            "sub": a - b,
            "mul": a * b,
            "div": a / b,
            "scalar-mul": a * 0.7,
            "scalar-add": a + 0.7,
            "scalar-div": a / 3.0,
            "maximum": torch.maximum(a, b),
            "where": torch.where(a > b, a, b),
            "fill": a.masked_fill(a > 1, 0.25),
            "clamp": a.clamp(-1, 1),
            "relu": a.relu(),
            "leaky": F.leaky_relu(a, 0.1),
            "gelu": F.gelu(a),
            "exp": a.exp(),
            "sqrt": b.sqrt(),
            "log": b.log(),
            "square": a.square(),
            "pow": b.pow(3.0),
            "copy": a.transpose(0, 1).contiguous(),
            "channels-last": a.contiguous(memory_format=torch.channels_last),
            "cat": torch.cat([a, b], 1),
            "stack": torch.stack([a, b], -1),
            "flip": a.flip(-1),
            "compare": (a > b).to(a.dtype),
            "float": a.to(torch.promote_types(a.dtype, torch.float32)),
            "full": torch.full_like(a, 0.3),
            "pad": F.pad(a, (1, 0, 0, 1)),
            "addcmul": torch.addcmul(a, b, b, value=0.1),
            "lerp": torch.lerp(a, b, 0.3),
        }.items()
    }


def _pointwise_in_place(x: Tensor) -> Tensors:
    a = tiled(x, *MILLIONS) * 4
    b = tiled(x.roll(1), *MILLIONS) + 2
    calls: dict[str, Callable[[Tensor], Any]] = {
        "silu": lambda t: F.silu(t, inplace=True),
        "relu": F.relu_,
        "sigmoid": torch.sigmoid_,
        "add": lambda t: t.add_(b),
        "mul": lambda t: t.mul_(b),
        "scale": lambda t: t.mul_(0.9),
        "sub": lambda t: t.sub_(b, alpha=0.5),
        "zero": torch.zero_,
        "fill": lambda t: t.fill_(0.25),
        "masked": lambda t: t.masked_fill_(b > 2, 1.0),
        "copy": lambda t: t.copy_(b),
        "clamp": lambda t: t.clamp_(-1, 1),
        "div": lambda t: t.div_(b),
        "lerp": lambda t: t.lerp_(b, 0.25),
        "part": lambda t: t[:, :, 1:, 1:].copy_(b[:, :, 1:, 1:]),
    }
    return {name: _in_place(call, a) for name, call in calls.items()}


def _pointwise_backward(x: Tensor) -> Tensors:
    a, b = tiled(x, *MILLIONS) * 4, tiled(x.roll(1), *MILLIONS) + 2
    target = tiled(x.abs(), *MILLIONS)
    return _named(
        silu=backward(F.silu, a),
        sigmoid=backward(torch.sigmoid, a),
        leaky=backward(lambda t: F.leaky_relu(t, 0.1), a),
        mul=backward(torch.mul, a, b),
        bce=backward(lambda t: F.binary_cross_entropy_with_logits(t, target, reduction="none"), a),
        l1=backward(lambda t: F.smooth_l1_loss(t, target, reduction="none"), a),
    )


def _rows(x: Tensor) -> Tensors:
    wide, narrow, w = tiled(x, ROWS, 16) * 9, tiled(x, ROWS, 5), tiled(x, 7, 16)
    kinds = torch.arange(ROWS, device=x.device) % 16
    one = torch.ones_like(x[:8])
    return _named(
        softmax=backward(lambda t: t.softmax(1), wide),
        softmax_first=backward(lambda t: t.softmax(0), narrow),
        log_softmax=backward(lambda t: t.log_softmax(1), wide),
        layer_norm=backward(lambda t, g: F.layer_norm(t, (8,), g, g), tiled(x, ROWS, 8) * 2 + 1, one),
        sums={
            "row": ends(narrow.sum(1)),
            "mean": ends(wide.mean(1)),
            "norm": ends(wide.norm(dim=1)),
            "max": ends(wide.amax(1)),
        },
        integral={"out": ends(wide.softmax(1) @ torch.arange(16, dtype=x.dtype, device=x.device))},
        linear=backward(F.linear, wide / 9, w, w[:, 0].contiguous()),
        cross_entropy=backward(lambda t: F.cross_entropy(t, kinds, reduction="none"), wide),
        cross_entropy_mean=backward(lambda t: F.cross_entropy(t, kinds).view(1), wide),
        embedding=backward(lambda t: F.embedding(kinds, t), w.t().contiguous()),
        prod={"out": ends((narrow[:, :2] + 2).prod(1))},
    )


def _row_places(x: Tensor) -> Tensors:
    order = torch.arange(ROWS, device=x.device) * 31 % ROWS
    rows, column = torch.stack([order, order + 1], 1).to(x.dtype), order.to(x.dtype)
    mask = order % 3 == 0
    grid = (order[:60_000].view(300, 200) % 7 == 0).nonzero()
    largest, at = column.topk(5)
    ordered = {
        f"sort{i}": t for down in (True, False) for i, t in enumerate(column.sort(descending=down), start=2 * down)
    }
    return {
        **ordered,
        "masked": rows[mask],
        "taken": rows[order],
        "select": rows.index_select(0, order),
        "grid": grid,
        "gather": rows.gather(0, order[:, None].expand(-1, 2)),
        "along": rows.t().contiguous().gather(1, order.expand(2, -1)),
        "nonzero": mask.nonzero(),
        "topk": largest,
        "topk_at": at,
        "argmax": column.argmax().view(1),
        "max": column.max().view(1),
        "min": column.neg().min().view(1),
        "row_argmax": rows.argmax(1),
        "first_argmax": rows.argmax(0),
        "where": torch.where(mask[:, None], rows, -rows),
        "put": rows.masked_fill(mask[:, None], -1.0),
        "put_mask": _in_place(lambda t: t.__setitem__(mask, -2.0), rows),
        "selected": column.masked_select(mask),
        "scatter": torch.zeros_like(column).scatter_(0, order, column),
        "count": mask.sum().view(1),
        "one_hot": ends(F.one_hot(order % 16, 16)),
        "unique": torch.stack((order // 3).unique(return_counts=True)),
        "bins": torch.bincount(order % 11),
        "cumsum": (order % 5).cumsum(0),
        "repeat": mask.repeat_interleave(order % 3),
        "add": torch.zeros(11, dtype=torch.int64, device=x.device).index_add_(0, order % 11, order),
        "any": (order == order[-1]).any().view(1),
        "all": (order != order[-1]).all().view(1),
        "sum": order.sum().view(1),
    }


def _maps(x: Tensor) -> Tensors:
    big, planes, images = tiled(x, 2, 4, 260, 257), tiled(x, *PLANES), tiled(x, 17, 3, 20, 21)
    shape = tuple(PLANES[2:])
    one = torch.ones_like(x[:2])
    return _named(
        nearest=backward(lambda t: F.interpolate(t, scale_factor=2, mode="nearest"), big),
        bilinear=backward(lambda t: F.interpolate(t, size=(511, 517), mode="bilinear"), big),
        smaller={"out": ends(F.interpolate(tiled(x, 1, 2, 401, 400), size=(321, 320), mode="bilinear"))},
        maxpool=backward(lambda t: F.max_pool2d(t, 3, 2, 1), big - 2),
        plane_maxpool=backward(lambda t: F.max_pool2d(t, 2, 1), planes - 2),
        plane_avgpool=backward(lambda t: F.avg_pool2d(t, 2, 1), planes),
        plane_nearest=backward(lambda t: F.interpolate(t, scale_factor=2, mode="nearest"), planes),
        plane_mean=backward(lambda t: F.adaptive_avg_pool2d(t, 1), planes),
        plane_silu={"out": ends(F.silu(planes * 5))},
        small_planes={"out": ends(F.max_pool2d(tiled(x, 66_000, 1, 2, 2), 2))},
        images=backward(lambda t: F.interpolate(t, size=(27, 29), mode="bilinear"), images),
        images_nearest={"out": ends(F.interpolate(images, size=(33, 31), mode="nearest"))},
        batch_norm=backward(lambda t, g: F.batch_norm(t, None, None, g, g, True), tiled(x, 2, 2, 257, 258), one),
        group_norm=backward(lambda t: F.group_norm(t, 4), big[..., :129].contiguous()),
        planes_norm=backward(lambda t: F.layer_norm(t, shape), planes),
    )


def _convolutions(x: Tensor) -> Tensors:
    def conv(shape: tuple[int, ...], weight: tuple[int, ...], bias: bool = False, **more: Any) -> Tensors:
        w = tiled(x.flip(0), *weight) / math.sqrt(math.prod(weight[1:]))
        parts = [tiled(x, *shape), w, *([x[: weight[0]].clone()] if bias else [])]
        return backward(lambda *t: F.conv2d(t[0], t[1], t[2] if bias else None, **more), *parts)

    w = tiled(x.flip(0), 8, 1, 1, 1)
    return _named(
        outputs={"out": ends(F.conv2d(tiled(x, 8, 1, 257, 258), w))},
        batch=conv((33, 5, 9, 11), (7, 5, 3, 3), bias=True, padding=1),
        bias=conv((2, 1, 201, 203), (2, 1, 1, 1), bias=True),
        depthwise=conv((2, 9, 65, 66), (9, 1, 3, 3), groups=9, padding=1),
        stride=conv((1, 3, 129, 131), (5, 3, 3, 3), stride=2, padding=1),
        weights=conv((1, 260, 5, 5), (260, 260, 3, 3), padding=1),
        pointwise=conv((3, 12, 45, 43), (80, 12, 1, 1), bias=True),
        grouped=conv((3, 24, 21, 20), (36, 8, 3, 3), groups=3, padding=1),
    )


TABLES: dict[str, Compute] = {
    "pointwise": _pointwise,
    "pointwise-in-place": _pointwise_in_place,
    "pointwise-backward": _pointwise_backward,
    "rows": _rows,
    "row-places": _row_places,
    "maps": _maps,
    "convolutions": _convolutions,
}
"""By name; each takes the drawn numbers, between -1 and 1, and gives what is compared."""


def large(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a table of operations at large sizes."""
    return Recipe(inputs={"x": draw("x", PERIOD)}, compute=TABLES[params["table"]])


RECIPES: dict[str, Builder] = {"large": large}
