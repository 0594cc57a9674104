"""Functions of maps and rows with their gradients, in all pairs of layouts of the maps, of the gradients, and sizes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Tensors, value_and_gradients
from .arranging import arranged, tiled
from .covering import Row, covered, pairwise

STEPS = 251
"""Different numbers: a prime, so that numbers that are near each other in a map are never equal; bfloat16 holds each."""
DRAWN = 32 * STEPS
_LAYOUTS = ("plain", "channels_last", "turned", "gaps", "offset")
_SIZES = ("4x6", "7x5", "3x40", "43x3")
MAPS = [
    *pairwise(layout=_LAYOUTS, gradient=(*_LAYOUTS, "expanded"), channels=("1", "3", "33", "64", "65"), size=_SIZES),
    *pairwise(
        layout=("plain", "channels_last"), gradient=("plain", "channels_last"), channels=("3", "64"), size=("1x1",)
    ),
    *(
        {"layout": "channels_last", "gradient": gradient, "channels": channels, "size": size}
        for channels, gradient in (("8", "plain"), ("65", "channels_last"), ("64", "channels_last"))
        for size in _SIZES[::2]
    ),
]
"""The kernels for channels_last count in blocks of channels: of that layout there are more channels and sizes."""
ROWS = pairwise(
    layout=("plain", "turned", "gaps", "offset"),
    gradient=("plain", "turned", "gaps", "expanded"),
    rows=("1", "2", "7", "33"),
    width=("1", "4", "16", "17", "80", "257"),
)
_WIDER = {"1x1": (1, 3), "4x6": (5, 9), "7x5": (10, 8), "3x40": (5, 41), "43x3": (64, 4)}
"""Sizes that a multi-scale training resizes to, by no whole factor."""

Function = Callable[..., Tensor]
POINTWISE: dict[str, Function] = {
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "relu": torch.relu,
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "gelu": F.gelu,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "double": lambda x: x + x,
    "half": lambda x: x * 0.5,
    "cat": lambda x: torch.cat([x, x * 2, x[:, :1]], 1),
    "part": lambda x: torch.cat([x[:, 1:], x[:, :1]], 1) * x,
    "chunk": lambda x: x.chunk(2, 1)[0] * 3,
    "mean": lambda x: x.mean((2, 3)),
    "sum": lambda x: x.sum((0, 2, 3)),
    "adaptive": lambda x: F.adaptive_avg_pool2d(x, 1),
    "nearest": lambda x: F.interpolate(x, scale_factor=2.0),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "batch": lambda x: F.batch_norm(torch.cat([x, -2 * x]), None, None, None, None, True),
}
WINDOWS: dict[str, Function] = {
    "max2": lambda x: F.max_pool2d(x, 2),
    "max3": lambda x: F.max_pool2d(x, 3, 2, 1),
    "max5": lambda x: F.max_pool2d(x, 5, 1, 2),
    "avg2": lambda x: F.avg_pool2d(x, 2),
    "avg3": lambda x: F.avg_pool2d(x, 3, 2, 1),
    "avg-1": lambda x: F.avg_pool2d(x, 2, 1),
    "adaptive3": lambda x: F.adaptive_avg_pool2d(x, 3),
}
"""Of maps of more than one place."""
OF_ROWS: dict[str, Function] = {
    "softmax": lambda x: x.softmax(-1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "columns": lambda x: x.softmax(0),
    "sum": lambda x: x.sum(-1),
    "mean": lambda x: x.mean(0),
    "norm": lambda x: (x + 3).norm(dim=-1),
    "lse": lambda x: x.logsumexp(-1),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "amax": lambda x: x.amax(-1),
    "narrow": lambda x: x[:, -1:] * 2,
    "exp": lambda x: (x / 2).exp(),
    "square": torch.square,
    "root": lambda x: (x + 5).sqrt(),
    "log": lambda x: (x + 5).log(),
    "div": lambda x: x / (x.detach().flip(0) + 5),
    "mul": lambda x: x * x.detach().flip(0),
    "clamp": lambda x: x.clamp(-1, 1),
    "where": lambda x: torch.where(x > 0, x, x * 2),
    "atan": torch.atan,
    "logit": lambda x: (x / 8 + 0.5).logit(),
    "pow": lambda x: (x + 5) ** 1.5,
    "maximum": lambda x: torch.maximum(x, x.detach().flip(0)),
    "abs": torch.abs,
    "stack": lambda x: torch.stack([x, x * 2], 1),
    "index": lambda x: x[[0, -1, 0]],
    "cumsum": lambda x: x.cumsum(0),
    "expand": lambda x: x[:, None].expand(-1, 3, -1),
    "var": lambda x: torch.cat([x, 2 * x + 1]).var(0),
    "bce": lambda x: F.binary_cross_entropy_with_logits(x, x.detach().sigmoid() / 2, reduction="none"),
    "smooth": lambda x: F.smooth_l1_loss(x, x.detach().flip(0), reduction="none"),
    "mse": lambda x: F.mse_loss(x, x.detach().flip(0) + 1),
    "l1": lambda x: F.l1_loss(x, x.detach() + 1, reduction="sum"),
    "bce-mean": lambda x: F.binary_cross_entropy_with_logits(x, x.detach().sigmoid() / 2),
    "prod": lambda x: (x[:, :2] + 3).prod(-1),
    "take": lambda x: x.gather(1, x.detach()[:, :1].long() * 0),
}
LEAST = {"softmax": 2, "log_softmax": 2, "layer_norm": 16}
"""Columns; with fewer, all terms of a gradient cancel."""
SMALLER = 2.0**-40
"""Of gradients: float32 and bfloat16 hold them as well as ordinary ones."""


def _both(name: str, function: Function, *inputs: Tensor, upstream: Callable[[Tensor], Tensor]) -> Tensors:
    """Return the result of a function and its gradients by all inputs, each under a name of its own."""
    out, *gradients = value_and_gradients(function, *inputs, upstream=upstream)
    return {name: out, **{f"{name}-back{i or ''}": g for i, g in enumerate(gradients)}}


def _like(x: Tensor, i: int, layout: str, small: bool = False) -> Callable[[Tensor], Tensor]:
    """Return what makes a gradient for a result, of ordinary size or small."""
    return lambda out: arranged(tiled(x[i:], *out.shape) * (SMALLER if small else 1.0), layout)


def _mapped(i: int, row: Row, x: Tensor, w: Tensor, small: bool = False) -> Tensors:
    height, width = (int(side) for side in row["size"].split("x"))
    t = arranged(tiled(x[7 * i :], 2, int(row["channels"]), height, width), row["layout"])
    size = _WIDER[row["size"]]
    functions = {
        **POINTWISE,
        **(WINDOWS if height > 1 else {}),
        "odd": lambda x: F.interpolate(x, size=size),
        "bilinear": lambda x: F.interpolate(x, size=size, mode="bilinear"),
    }
    found: Tensors = {}
    for name, function in functions.items():
        if name != "batch" or height > 1:
            found |= _both(name, function, t, upstream=_like(w, 3 * i, row["gradient"], small))
    return found


def _wide(i: int, row: Row, x: Tensor, w: Tensor, small: bool = False) -> Tensors:
    upstream = _like(w, 5, "plain", small)
    return _both("odd", lambda x: F.interpolate(x, size=(9, 211)), tiled(x, 1, 2, 7, 160), upstream=upstream)


def _of_rows(i: int, row: Row, x: Tensor, w: Tensor, small: bool = False) -> Tensors:
    t = arranged(tiled(x[7 * i :], int(row["rows"]), int(row["width"])), row["layout"])
    found: Tensors = {}
    for name, function in OF_ROWS.items():
        cancels = name == "columns" and (row["rows"] == "1" or row["gradient"] == "expanded")
        if int(row["width"]) >= LEAST.get(name, 1) and not cancels:
            found |= _both(name, function, t, upstream=_like(w, 3 * i, row["gradient"], small))
    return found


def _inputs(draw: HashedDraw) -> Tensors:
    """Return gradients, and numbers between -4 and 4, none of them where a function has a corner."""
    step, start = (int(draw.integers(name, 1, below=STEPS - 1)) + 1 for name in ("step", "start"))
    whole = (torch.arange(DRAWN) * step + start) % STEPS - STEPS // 2
    return {"x": (2 * whole + 1).double() / 64, "w": draw("w", DRAWN, low=0.25)}


NORMS = pairwise(
    kind=("batch", "evaluation", "layer", "group"),
    spread=("1", "1e-2", "1e-4"),
    offset=("0", "3"),
    eps=("1e-3", "1e-5"),
    gradient=("ordinary", "small"),
    layout=("plain", "channels_last"),
    size=("2x64x5x7", "3x8x9x8", "1x16x32x8", "4x3x16x16"),
)


def _normalisation(kind: str, kept: Tensors, width: int, groups: int, eps: float) -> Function:
    """Return a normalisation of a tensor by two parameters; that of a batch in training moves what is kept."""
    if kind == "layer":
        return lambda t, a, b: F.layer_norm(t.contiguous(), (width,), a, b, eps)
    if kind == "group":
        return lambda t, a, b: F.group_norm(t, groups, a, b, eps)
    return lambda t, a, b: F.batch_norm(t, kept["mean"], kept["var"], a, b, kind == "batch", 0.03, eps)


def _normed(i: int, row: Row, x: Tensor, w: Tensor) -> Tensors:
    """Return normalisations of maps of every spread: below that of epsilon, it is epsilon that counts."""
    n, c, h, v = (int(side) for side in row["size"].split("x"))
    spread = float(row["spread"])
    offset = float(row["offset"]) * min(spread * 4, 1)
    eps = float(row["eps"])
    t = arranged(tiled(x[7 * i :], n, c, h, v) * spread + offset, row["layout"])
    scale, shift = tiled(w[i:], c), tiled(x[i:], c)
    wide = tiled(w[i:], v)
    mean, var = tiled(x, c) * spread + offset, (tiled(w, c) + 1) * spread**2
    kept = {"mean": mean.clone(), "var": var.clone()}
    function = _normalisation(row["kind"], kept, v, 1 if c == 3 else 4, eps)
    parameters = (wide, wide + 1) if row["kind"] == "layer" else (scale, shift)
    upstream = _like(w, 3 * i, row["layout"], row["gradient"] == "small")
    found = _both(row["kind"], function, t, *parameters, upstream=upstream)
    return found | {f"running-{name}": t for name, t in kept.items()}


def _wide_rows(i: int, row: Row, x: Tensor, w: Tensor) -> Tensors:
    n, t = int(row["width"]), tiled(x, 9, int(row["width"])) * 1e-4
    upstream = _like(w, 5, "plain")
    return _both("wide", lambda t: F.layer_norm(t, (n,), tiled(w, n), tiled(x, n)), t, upstream=upstream)


LOSSES = [
    {"size": size, "reduction": reduction}
    for size in ("1x3", "2x80", "3x2", "5x10", "7x3", "8x80", "13x10", "33x3")
    for reduction in ("mean", "sum", "none")
]


def _entropies(i: int, row: Row, x: Tensor, w: Tensor) -> Tensors:
    """Return cross entropies of a batch, with weights, ignored rows and smoothed labels."""
    rows, kinds = (int(side) for side in row["size"].split("x"))
    t = tiled(x[rows:], rows, kinds)
    target = torch.arange(rows, device=x.device) * 7 % kinds
    ignored = torch.where(target % 3 == 1, -100, target) if rows > 1 and kinds > 2 else target
    loss = partial(F.cross_entropy, reduction=row["reduction"])
    functions: dict[str, Function] = {
        "plain": lambda t: loss(t, target),
        "ignore": lambda t: loss(t, ignored),
        "weight": lambda t: loss(t, target, tiled(w, kinds) + 0.5),
        "smooth": lambda t: loss(t, target, label_smoothing=0.1),
    }
    found: Tensors = {}
    for name, function in functions.items():
        found |= _both(name, function, t, upstream=_like(w, 3, "plain"))
    return found


_WIDTHS = [{"width": width} for width in ("16", "64", "128", "256", "512", "1024")]
RECIPES: dict[str, Builder] = {
    "cover_maps": covered(_inputs, (MAPS, _mapped), ([{"size": "wide"}], _wide)),
    "cover_rows": covered(_inputs, (ROWS, _of_rows)),
    "cover_norms": covered(_inputs, (NORMS, _normed), (_WIDTHS, _wide_rows)),
    "cover_losses": covered(_inputs, (LOSSES, _entropies)),
}
