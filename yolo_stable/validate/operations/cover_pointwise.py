"""Functions of one, two and three tensors in all pairs of layouts, broadcasts, forms and sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Tensors, value_and_gradients
from .arranging import BROADCASTS, LAYOUTS, SHAPES, arranged, shapes, tiled
from .covering import Row, covered, pairwise

FORMS = ("new", "in-place", "out")
DRAWN = 4_001
"""Drawn numbers, of which all operands are made."""
PAIRS = pairwise(broadcast=BROADCASTS, a=LAYOUTS, b=LAYOUTS, form=FORMS, size=tuple(SHAPES))
SINGLES = pairwise(a=LAYOUTS, size=tuple(SHAPES), form=FORMS)

Unary = tuple[str, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor] | None, Callable[..., Tensor] | None]


def _methods(kind: str, *names: str) -> list[Unary]:
    """Return functions that torch has as a function, as a method with an underscore, and with ``out``."""
    return [(kind, getattr(torch, name), getattr(Tensor, f"{name}_"), getattr(torch, name)) for name in names]


UNARY: dict[str, Unary] = {
    **{f[1].__name__: f for f in _methods("any", "abs", "neg", "sign", "floor", "ceil", "round", "trunc", "sigmoid")},
    **{f[1].__name__: f for f in _methods("positive", "sqrt", "rsqrt", "log1p", "reciprocal")},
    **{f[1].__name__: f for f in _methods("small", "exp", "expm1", "square", "atan", "tanh", "erf")},
    **{f"{f[1].__name__}~": f for f in _methods("small", "sin", "cos")},
    "log~": _methods("positive", "log")[0],
    "relu": ("any", torch.relu, torch.relu_, None),
    "silu": ("any", F.silu, lambda x: F.silu(x, inplace=True), None),
    "leaky": ("any", lambda x: F.leaky_relu(x, 0.1), lambda x: F.leaky_relu_(x, 0.1), None),
    "hardswish~": ("any", F.hardswish, lambda x: F.hardswish(x, inplace=True), None),
    "gelu~": ("any", F.gelu, None, None),
    "softplus": ("small", F.softplus, None, None),
    "clamp": (
        "any",
        lambda x: x.clamp(-0.75, 3),
        lambda x: x.clamp_(-0.75, 3),
        lambda x, out: torch.clamp(x, -0.75, 3, out=out),
    ),
    "clamp_min": (
        "any",
        lambda x: x.clamp_min(0),
        lambda x: x.clamp_min_(0),
        lambda x, out: torch.clamp_min(x, 0, out=out),
    ),
    "clamp_max": (
        "any",
        lambda x: x.clamp(max=1),
        lambda x: x.clamp_(max=1),
        lambda x, out: torch.clamp_max(x, 1, out=out),
    ),
    "cube": ("small", lambda x: x**3, lambda x: x.pow_(3), lambda x, out: torch.pow(x, 3, out=out)),
    "root": ("positive", lambda x: x**0.5, lambda x: x.pow_(0.5), lambda x, out: torch.pow(x, 0.5, out=out)),
    "base": ("small", lambda x: 0.9**x, None, lambda x, out: torch.pow(0.9, x, out=out)),
    "add": ("positive", lambda x: x + 0.7, lambda x: x.add_(0.7), lambda x, out: torch.add(x, 0.7, out=out)),
    "mul": ("any", lambda x: x * 0.7, lambda x: x.mul_(0.7), lambda x, out: torch.mul(x, 0.7, out=out)),
    "div": ("any", lambda x: x / 3, lambda x: x.div_(3), lambda x, out: torch.div(x, 3, out=out)),
    "sub": ("any", lambda x: x - 0.75, lambda x: x.sub_(0.75), lambda x, out: torch.sub(x, 0.75, out=out)),
    "rsub": ("any", lambda x: 0.75 - x, None, None),
    "over": ("any", lambda x: 0.3 / x, None, None),
    "not": ("any", torch.logical_not, None, None),
    "isfinite": ("any", torch.isfinite, None, None),
    "numbers": ("any", lambda x: x.nan_to_num(), lambda x: x.nan_to_num_(), None),
    "copy": ("any", torch.clone, lambda x: x.copy_(x.flip(0)), None),
    "fill": ("any", lambda x: torch.full_like(x, 0.3), lambda x: x.fill_(0.3), None),
    "zero": ("any", torch.zeros_like, torch.zero_, None),
    "ones": ("any", torch.ones_like, lambda x: x.fill_(1), None),
    "greater": ("any", lambda x: x > 0.5, lambda x: x.gt_(0.5), None),
    "equal": ("any", lambda x: x == 2, None, None),
    "unequal": ("any", lambda x: x != 2, None, None),
    "less": ("any", lambda x: x < -0.5, None, None),
    "at-least": ("any", lambda x: x >= 2, None, None),
    "at-most": ("any", lambda x: x <= -2, None, None),
    "masked": ("any", lambda x: x.masked_fill(x > 1, 0.3), lambda x: x.masked_fill_(x > 1, 0.3), None),
}
"""By name: what it takes (any, positive or small numbers), and its forms; ``~``: terms cancel near a zero."""

Binary = tuple[str, Callable[..., Tensor], Callable[..., Any] | None, Callable[..., Any] | None]
BINARY: dict[str, Binary] = {
    "add": ("any", torch.add, Tensor.add_, torch.add),
    "add-scaled~": ("any", lambda a, b: torch.add(a, b, alpha=0.3), lambda a, b: a.add_(b, alpha=0.3), None),
    "sub": ("any", torch.sub, Tensor.sub_, torch.sub),
    "sub-scaled~": ("any", lambda a, b: torch.sub(a, b, alpha=0.3), lambda a, b: a.sub_(b, alpha=0.3), None),
    "rsub": ("any", lambda a, b: torch.rsub(a, b), None, None),
    "mul": ("any", torch.mul, Tensor.mul_, torch.mul),
    "div": ("any", torch.div, Tensor.div_, torch.div),
    "maximum": ("any", torch.maximum, None, torch.maximum),
    "minimum": ("any", torch.minimum, None, torch.minimum),
    "clamp": ("any", lambda a, b: torch.clamp(a, min=b), lambda a, b: a.clamp_(min=b), None),
    "atan2": ("positive", torch.atan2, Tensor.atan2_, None),
    "power": ("positive", lambda a, b: torch.pow(b, a.clamp(-2, 2)), None, None),
    "copy": ("any", lambda a, b: (a + b).copy_(b), Tensor.copy_, None),
    **{name: ("any", getattr(torch, name), None, None) for name in ("gt", "ge", "lt", "le", "eq", "ne")},
    "where": ("any", lambda a, b: torch.where(a > 0, a, b), None, None),
    "chosen": ("any", lambda a, b: torch.where(b > 0, a, 0.3), None, None),
    "masked": ("any", lambda a, b: (a + b).masked_fill_(b > 0, 0.3), lambda a, b: a.masked_fill_(b > 0, 0.3), None),
    "masked-tensor": ("any", lambda a, b: a.masked_fill(b > 0, a.new_tensor(0.3)), None, None),
    "lerp~": ("any", lambda a, b: torch.lerp(a, b, 0.3), lambda a, b: a.lerp_(b, 0.3), None),
    "addcmul~": ("any", lambda a, b: torch.addcmul(a, a, b, value=0.1), lambda a, b: a.addcmul_(b, b, value=0.1), None),
    "addcdiv~": ("any", lambda a, b: torch.addcdiv(a, a, b, value=0.1), lambda a, b: a.addcdiv_(b, b, value=0.1), None),
    "and": ("any", lambda a, b: (a > 0) & (b > 0), None, None),
    "or": ("any", lambda a, b: (a > 0) | (b > 0), None, None),
    "xor": ("any", lambda a, b: (a > 0) ^ (b > 0), None, None),
}


def call_in_form(forms: Sequence[Any], form: str, first: Tensor, others: tuple[Tensor, ...], layout: str) -> Tensor:
    """Call an operation in one of its forms (new, in place, out); plainly where it has no such form, or cannot take it."""
    new, in_place, with_out = forms
    fits = torch.broadcast_shapes(first.shape, *(t.shape for t in others)) == first.shape
    if form == "in-place" and in_place is not None and layout != "expanded" and fits:
        target = arranged(first.clone(memory_format=torch.contiguous_format), layout)
        in_place(target, *others)
        return target
    if form == "out" and with_out is not None:
        shape = torch.broadcast_shapes(first.shape, *(t.shape for t in others))
        target = arranged(first.new_full(shape, 7), layout if layout != "expanded" else "plain")
        with_out(first, *others, out=target)
        return target
    return new(first, *others)


def _is_lost(name: str, size: str) -> bool:
    """Return whether terms may cancel and there is only one element: nothing measures its error then."""
    return name.endswith("~") and size == "one"


def _unary(i: int, row: Row, x: Tensor) -> Tensors:
    numbers = {"any": x, "positive": x.abs(), "small": x.clamp(-2, 2)}
    shape = SHAPES[row["size"]]
    taken = {kind: arranged(tiled(t[i:], *shape), row["a"]) for kind, t in numbers.items()}
    return {
        name: call_in_form(forms, row["form"], taken[kind], (), row["a"])
        for name, (kind, *forms) in UNARY.items()
        if not _is_lost(name, row["size"])
    }


def _binary(i: int, row: Row, x: Tensor) -> Tensors:
    first, second = shapes(SHAPES[row["size"]], row["broadcast"])
    a = arranged(tiled(x[i:], *first), row["a"])
    b = arranged(tiled(x[2 * i + 9 :], *second), row["b"])
    positive = arranged(tiled(x[2 * i + 9 :].abs(), *second), row["b"])
    return {
        name: call_in_form(forms, row["form"], a, (positive if kind == "positive" else b,), row["a"])
        for name, (kind, *forms) in BINARY.items()
        if not _is_lost(name, row["size"])
    }


def _small(i: int, row: Row, x: Tensor, far: Tensor) -> Tensors:
    """Return functions of numbers far below 1, and those whose results are: nothing that a type holds becomes 0.

    Limits of comparisons are numbers that each type holds.
    """
    layout = row["layout"]
    t, u, v = (arranged(z.view(3, 5, 7, 9), layout) for z in (x, x.roll(1) * 0.5, far))
    parts = {
        "silu": F.silu(t),
        "relu": t.relu(),
        "leaky": F.leaky_relu(t, 0.1),
        "tanh": t.tanh(),
        "sin": t.sin(),
        "atan": t.atan(),
        "abs": t.abs(),
        "neg": -t,
        "add": t + u.abs(),
        "sub": t - u,
        "scaled": t * 3,
        "divided": t / 3,
        "maximum": t.maximum(u),
        "minimum": t.minimum(u),
        "where": torch.where(t > 0, t, u),
        "copy": torch.zeros_like(t).copy_(t),
        "clone": t.clone(),
        "clamp": t.clamp_min(0),
        "within": t.clamp(-1, 1),
        "above": t.clamp(max=1e-9),
        "below": t.clamp_min(1e-12),
        "lerp~": t.lerp(u, 0.3),
        "addcmul~": torch.addcmul(t, u, v),
        "mul": t * v,
        "div": t / v,
        "expm1": t.expm1(),
        "log1p": t.abs().log1p(),
        "root": t.abs().sqrt(),
        "sum~": t.sum(-1),
        "mean~": t.mean(-1),
        "norm~": t.norm(dim=-1),
        "max": t.amax(-1),
        "filled": t.masked_fill(t < 0, 1e-9),
        "cat": torch.cat([t, u], 1),
        "part": t[:, 1:] * 2,
        "sign": t.sign(),
        "truth": t.bool(),
        "not": t.logical_not(),
        "stack": torch.stack([t, u]),
        "single": t.to(torch.float32),
        "gt": t > 2**-30,
        "gt-24": t > 2**-24,
        "gt-50": t > 2**-50,
        "lt": t < 2**-24,
        "lt-40": t < 2**-40,
        "ge": t >= 2**-30,
        "le": t <= 2**-30,
        "eq": t == 0,
        "ne": t != 0,
        "gt-tensor": t > u,
        "gt-zero": t > 0,
        "lt-zero": t < 0,
        "exp-far": (-v).exp(),
        "sigmoid-far": (-v).sigmoid(),
        "silu-far": F.silu(-v),
        "softplus-far": F.softplus(-v),
        "sigmoid-near": v.sigmoid(),
        "softmax-far": torch.stack([-v, v * 0], -1).softmax(-1),
        "elu": F.elu(t),
        "full": torch.full_like(t, 1e-9),
        "whole": t.sum(),
        "power": t.abs() ** 0.5,
        "gradient": value_and_gradients(F.silu, -v, upstream=torch.ones_like)[1],
    }
    in_place = {
        "add_": lambda z: z.add_(1e-9),
        "mul_": lambda z: z.mul_(0.3),
        "clamp_": lambda z: z.clamp_(min=1e-9),
        "div_": lambda z: z.div_(7),
        "relu_": torch.relu_,
        "silu_": lambda z: F.silu(z, inplace=True),
        "zero-less": lambda z: z.masked_fill_(z < 2**-30, 1e-9),
    }
    for name, call in in_place.items():
        parts[name] = arranged(t.abs().contiguous(), layout if layout != "expanded" else "plain")
        call(parts[name])
    return parts


def _magnitudes(draw: HashedDraw) -> Tensors:
    """Return numbers of both signs between 1/64 and 64, evenly spread in their logarithm, with some that are equal."""
    x = torch.exp2(draw("size", DRAWN, low=-6, high=6)) * draw("sign", DRAWN).sign()
    x[draw("whole", DRAWN) > 0.8] = 2.0
    return {"x": x}


def _near_and_far(draw: HashedDraw) -> Tensors:
    x = torch.exp2(draw("size", 945, low=-60, high=-12)) * draw("sign", 945).sign()
    return {"x": x, "far": draw("far", 945, low=8, high=50)}


RECIPES: dict[str, Builder] = {
    "cover_unary": covered(_magnitudes, (SINGLES, _unary), scale="element"),
    "cover_binary": covered(_magnitudes, (PAIRS, _binary), scale="element"),
    "cover_small": covered(_near_and_far, ([{"layout": layout} for layout in LAYOUTS], _small), scale="element"),
}
