"""NaN, infinities, zeros and overflow through the operations of a training step, forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors, value_and_gradients

NAN, INF = float("nan"), float("inf")
SPECIAL = (1.5, NAN, -2.0, INF, 0.0, -INF, 0.5, -0.0, 3.0, -1.0, 2.5)
MOST = 65504.0
"""The largest number of float16."""
WIDTH = 12

Function = Callable[[Tensor], "Tensor | Mapping[str, Tensor]"]

_NAMED = (
    "exp", "log", "expm1", "sqrt", "rsqrt", "reciprocal", "square", "atan", "tanh", "sigmoid", "relu", "abs", "neg", "floor",
    "ceil", "round", "trunc", "erf",
)  # fmt: skip
FUNCTIONS: dict[str, Function] = {
    **{name: getattr(torch, name) for name in _NAMED},
    "log1p": lambda x: torch.log1p(x.abs()),
    "cube": lambda x: x.pow(3.0),
    "root": lambda x: x.abs().pow(0.5),
    "sixth": lambda x: x.abs().pow(6.0),
    "negative-power": lambda x: x.pow(-2.0),
    "scalar-base": lambda x: 0.5 ** x.clamp(-3, 3),
    "leaky": lambda x: F.leaky_relu(x, 0.1),
    "softplus": F.softplus,
    "add": lambda x: x + x.flip(-1),
    "sub": lambda x: x - x.flip(-1),
    "mul": lambda x: x * x.flip(-1),
    "divide": lambda x: {"each": x / x.flip(-1), "scalar": x / 0.0, "by": 2.0 / x, "third": x / 3.0},
    "numbers": lambda x: {
        "chosen": x.nan_to_num(0.25, 7.0, -7.0),
        "placed": x.clone().nan_to_num_(1.0, 9.0, -9.0),
    },
    "bounds": lambda x: {
        "min": x.clamp_min(0.5),
        "max": x.clamp_max(0.5),
        "tensor": x.clamp(x.new_tensor(-1.0), x.new_tensor(1.0)),
    },
    "in-place": lambda x: {
        "mul": x.clone().mul_(0.5),
        "add": x.clone().add_(1.0),
        "div": x.clone().div_(2.0),
        "clamp": x.clone().clamp_(0, 1),
        "relu": x.clone().relu_(),
        "sigmoid": x.clone().sigmoid_(),
        "lerp": x.clone().lerp_(torch.ones_like(x), 0.5),
        "sub": x.clone().sub_(x),
    },
    "fused": lambda x: {
        "lerp": torch.lerp(x, torch.ones_like(x), 0.5),
        "addcmul": torch.addcmul(x, x, x, value=0.5),
        "addcdiv": torch.addcdiv(x, torch.ones_like(x), x, value=-0.5),
    },
    "choose": lambda x: {
        "where": torch.where(x > 1, x, 0.5),
        "fill": x.masked_fill(x == INF, 0.5),
        "finite": torch.where(x.isfinite(), x, 0.25),
        "shape": torch.where(x[:, :1] > 0, x, -x),
    },
    "equal": lambda x: {
        "eq": x == x,
        "ne": x != x,
        "gt": x > 0,
        "ge": x >= 0,
        "lt": x < 0,
        "le": x <= 0,
        "any": x.bool(),
        "same": x == x.flip(-1),
        "close": x.abs() < 1,
        "and": (x > 0) & (x[:1] < 2),
        "not": ~(x > 0),
        "or": (x > 0) | (x[:1] < 2),
        "posinf": x.isposinf(),
        "neginf": x.isneginf(),
    },
    "rows": lambda x: {
        "sum": x.sum(-1),
        "mean": x.mean(-1),
        "max": x.amax(-1),
        "min": x.amin(-1),
        "norm": x.norm(dim=-1),
        "prod": x[:, :2].prod(-1),
        "cumsum": x.cumsum(-1),
        "extremes": torch.stack(x.aminmax(dim=-1)),
        "first": x.sum(0),
        "top": x.max(0).values,
        "var": x[3:].var(-1),
        "maximum": x.max(-1).values,
    },
    "whole": lambda x: {
        "sum": x[3:].abs().sum().view(1),
        "max": x[3:].max().view(1),
        "min": x[3:].min().view(1),
        "nan-max": x.max().view(1),
        "nan-min": x.min().view(1),
        "nan-mean": x.mean().view(1),
        "nan-sum": x.nansum().view(1),
        "sorted": x[3:].sort(-1, descending=True).values,
    },
    "copies": lambda x: {
        "cat": torch.cat([x, x], 1),
        "index": x[torch.arange(len(x), device=x.device).flip(0)],
        "gather": x.gather(1, torch.zeros_like(x, dtype=torch.int64)),
        "half": x.half().float(),
        "bfloat16": x.bfloat16().float(),
        "float": x.float(),
        "transpose": x.t().contiguous(),
        "pad": F.pad(x, (1, 1), value=-INF),
        "repeat": x.repeat(2, 1),
        "roll": x.roll(1, 1),
        "select": x.masked_select(x != 1.5),
        "copy": torch.zeros_like(x).copy_(x),
    },
    "maps": lambda x: {
        "pool": F.max_pool2d(x.view(1, 1, *x.shape), 3, 1, 1),
        "nearest": F.interpolate(x.view(1, 1, *x.shape), scale_factor=2.0),
        "mean": F.adaptive_avg_pool2d(x.view(1, len(x), 1, -1), 1),
    },
}
"""By name: IEEE 754 and torch's documentation leave no choice here. The first three rows have special numbers."""


def special(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a function of special numbers among ordinary ones."""
    x = draw("x", 9, 4 * WIDTH, low=0.25, high=3)  # away from 0, where a quotient leaves the range of float16
    x[draw("sign", *x.shape) < 0] *= -1
    x[:3] = torch.tensor(SPECIAL, dtype=torch.float64).repeat(14)[: 3 * 4 * WIDTH].view(3, -1)
    return Recipe(inputs={"x": x}, compute=FUNCTIONS[params["name"]])


def masks(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return softmax, its logarithm and attention where scores are minus infinity: some, or all but one, of a row."""
    inputs = {"x": draw("x", 2, 3, 17, 33, low=-6, high=6), "v": draw("v", 2, 3, 33, 8)}
    hidden = draw("mask", 17, 33) > 0.2
    hidden[3], hidden[:, 5] = True, False

    def compute(x: Tensor, v: Tensor) -> Tensors:
        mask = hidden.to(x.device)
        y = x.masked_fill(mask, -INF)
        q, k = x[..., :8].contiguous(), v
        scores = (q @ k.transpose(-1, -2)) * 8**-0.5
        if x.dtype == torch.float64:
            seen = {
                name: scores.masked_fill(h, -INF).softmax(-1) @ v
                for name, h in (("out", mask), ("none", mask[:1] & False))
            }
        else:
            seen = {
                "out": F.scaled_dot_product_attention(q, k, v, attn_mask=~mask),
                "none": F.scaled_dot_product_attention(q, k, v),
            }
        return {"soft": y.softmax(-1), "log": y.log_softmax(-1).exp(), "inner": y.softmax(2).nan_to_num(), **seen}

    return Recipe(inputs=inputs, compute=compute, gradients=("x", "v"))


def _gradients(function: Callable[..., Tensor], upstream: Tensor, *inputs: Tensor) -> list[Tensor]:
    return value_and_gradients(function, *inputs, upstream=lambda out: upstream.expand_as(out).to(out.dtype))


BACKWARD: dict[str, tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]] = {
    "conv": (F.conv2d, ((2, 4, 6, 7), (5, 4, 1, 1), (5,))),
    "mm": (torch.mm, ((9, 7), (7, 5))),
    "bmm": (torch.bmm, ((3, 9, 7), (3, 7, 5))),
    "linear": (F.linear, ((9, 7), (5, 7), (5,))),
    "silu": (F.silu, ((3, 5, 7),)),
    "sigmoid": (torch.sigmoid, ((3, 5, 7),)),
    "relu": (torch.relu, ((3, 5, 7),)),
    "gelu": (F.gelu, ((3, 5, 7),)),
    "softmax": (lambda x: x.softmax(-1), ((3, 5, 7),)),
    "log_softmax": (lambda x: x.log_softmax(-1), ((3, 5, 7),)),
    "max_pool": (lambda x: F.max_pool2d(x, 2), ((2, 3, 6, 8),)),
    "avg_pool": (lambda x: F.avg_pool2d(x, 2), ((2, 3, 6, 8),)),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2.0), ((2, 3, 5, 6),)),
    "batch_norm": (lambda x, w, b: F.batch_norm(x, None, None, w, b, True), ((3, 4, 5, 6), (4,), (4,))),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (7,), w, b), ((9, 7), (7,), (7,))),
    "sum": (lambda x: x.sum(0), ((9, 7),)),
    "mul": (torch.mul, ((9, 7), (9, 7))),
    "div": (torch.div, ((9, 7), (9, 7))),
    "cat": (lambda x, y: torch.cat([x, y]), ((9, 7), (3, 7))),
    "index": (lambda x: x[[0, 2, 2, 8]], ((9, 7),)),
    "slice": (lambda x: x[:, 2:5], ((9, 7),)),
    "smooth_l1": (lambda x, y: F.smooth_l1_loss(x, y, reduction="none"), ((9, 7), (9, 7))),
    "bce": (lambda x, y: F.binary_cross_entropy_with_logits(x, y.detach(), reduction="none") + 0 * y, ((9, 7), (9, 7))),
}
"""By name, with the shapes of their inputs; NaN or an infinity is put into the gradient of the result."""


NAN_ALONE = ("batch_norm", "layer_norm", "bce")
"""A difference that may be 0 is a factor of their gradients: rounding decides whether infinity or NaN comes out."""


def broken_gradient(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return an operation and its gradients where one number of the gradient, or of an input, is NaN or infinite."""
    function, shapes = BACKWARD[params["name"]]
    inputs = {f"x{i}": draw(f"x{i}", *shape, low=0.1) for i, shape in enumerate(shapes)}

    def compute(*sound: Tensor) -> Tensors:
        found: Tensors = {}
        shape = function(*sound).shape
        for name, value in (("nan", NAN), ("inf", INF))[: 1 if params["name"] in NAN_ALONE else 2]:
            upstream = torch.ones(shape, device=sound[0].device)
            upstream.view(-1)[upstream.numel() // 2] = value
            found |= {f"{name}{i}": t for i, t in enumerate(_gradients(function, upstream, *sound))}
        first = sound[0].clone()
        first.view(-1)[first.numel() // 2] = NAN
        one = torch.ones(shape, device=first.device)
        return found | {f"input{i}": t for i, t in enumerate(_gradients(function, one, first, *sound[1:]))}

    return Recipe(inputs=inputs, compute=compute, scale="none")


def overflow(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return where float16 must become infinite: what stops at its largest number hides every overflow from a loss scaler.

    All are beyond that number by a third at least, whatever is drawn and however it is rounded.
    """
    inputs = {"x": draw("x", 2, 8, 6, 6, low=120, high=200), "w": draw("w", 5, 8, 1, 1, low=100, high=200)}

    def compute(x: Tensor, w: Tensor) -> Tensors:
        ones = torch.ones(2, 5, 6, 6, device=x.device)
        conv, by_x, by_w = _gradients(F.conv2d, ones * 300, x, w)
        a, b = x.flatten(1), x.flatten(1)
        product, by_a, by_b = _gradients(lambda a, b: a @ b.t(), torch.full((2, 2), 500.0, device=x.device), a, b)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        parts = {
            "conv": conv,
            "conv-x": by_x,
            "conv-w": by_w,
            "product": product,
            "product-a": by_a,
            "product-b": by_b,
            "mul": x * 900,
            "each": x * w.view(-1)[:1] * 8,
            "add": x * 400 + x * 400,
            "sum": (x * 40).sum((0, 2, 3)),
            "square": x.square() * 8,
            "exp": (x / 9).exp(),
            "cast": (wide * 900).to(torch.float16 if x.dtype == torch.float16 else x.dtype),
            "divide": x / 1e-3,
            "copy": torch.zeros_like(x).copy_(wide * -900),
            "bmm": torch.bmm(x[0], x[0].transpose(1, 2)) * 4,
            "linear": F.linear(a, b),
            "in-place": x.clone().mul_(900),
        }
        return {name: t.abs() > MOST for name, t in parts.items()}

    return Recipe(inputs=inputs, compute=compute, scale="none")


RECIPES: dict[str, Builder] = {
    "special": special,
    "masks": masks,
    "broken_gradient": broken_gradient,
    "overflow": overflow,
}
