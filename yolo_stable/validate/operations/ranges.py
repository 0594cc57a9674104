"""Functions of one element over the whole range that training meets, in place, and at odd and large sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors

Function = Callable[[Tensor], Tensor]

FUNCTIONS: dict[str, tuple[Function, float, float]] = {
    "silu": (F.silu, -95, 95), "gelu": (F.gelu, -45, 45), "sigmoid": (torch.sigmoid, -100, 100), "tanh": (torch.tanh, -50, 50),
    "softplus": (F.softplus, -60, 60), "mish": (F.mish, -60, 60), "hardswish": (F.hardswish, -1e4, 1e4),
    "hardsigmoid": (F.hardsigmoid, -8, 8), "leaky_relu": (lambda x: F.leaky_relu(x, 0.1), -1e4, 1e4),
    "relu6": (F.relu6, -9, 9), "elu": (F.elu, -60, 60), "logsigmoid": (F.logsigmoid, -100, 100),
    "erf": (torch.erf, -6, 6), "sin": (torch.sin, -8, 8), "cos": (torch.cos, -8, 8), "atan": (torch.atan, -1e6, 1e6),
    "abs": (torch.abs, -1e4, 1e4), "square": (torch.square, -1e3, 1e3), "neg": (torch.neg, -9, 9),
    "rsqrt": (torch.rsqrt, 1e-3, 1e4), "reciprocal": (torch.reciprocal, 1e-3, 1e4), "log1p": (torch.log1p, 0, 1e4),
    "expm1": (torch.expm1, -30, 30), "tan": (torch.tan, -1.2, 1.2), "softmax": (lambda x: x.flatten(1).softmax(1), -120, 120),
    "log_softmax": (lambda x: x.flatten(1).log_softmax(1), -120, 120),
}  # fmt: skip
"""By name, with the range of their inputs."""
IN_PLACE: dict[str, Callable[[Tensor], Any]] = {
    "silu": lambda x: F.silu(x, inplace=True), "relu": F.relu_, "leaky_relu": lambda x: F.leaky_relu_(x, 0.1),
    "hardswish": lambda x: F.hardswish(x, inplace=True), "sigmoid": torch.sigmoid_, "tanh": torch.tanh_,
    "clamp": lambda x: x.clamp_(-0.5, 0.75), "add": lambda x: x.add_(x.flip(0), alpha=0.5), "mul": lambda x: x.mul_(x.flip(0)),
    "sub": lambda x: x.sub_(0.3), "div": lambda x: x.div_(3.0), "addcmul": lambda x: x.addcmul_(x.flip(0), x.flip(1), value=0.1),
    "lerp": lambda x: x.lerp_(x.flip(0), 0.3), "fill": lambda x: x[..., 1:].fill_(0.25), "zero": lambda x: x[:, 1:].zero_(),
    "masked_fill": lambda x: x.masked_fill_(x > 0.5, -2.0), "exp": torch.exp_, "copy": lambda x: x.copy_(x.flip(0)),
}  # fmt: skip


def function(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a function over its whole range, with its gradient, at a shape."""
    compute, low, high = FUNCTIONS[params["name"]]
    inputs = {"x": draw("x", *params["shape"], low=low, high=high)}
    return Recipe(inputs=inputs, compute=compute, gradients=("x",))


def in_place(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return what is in a tensor after a function has written into it."""

    def compute(x: Tensor) -> Tensor:
        out = x.clone()
        IN_PLACE[params["name"]](out)
        return out

    return Recipe(inputs={"x": draw("x", *params["shape"], low=-3, high=3)}, compute=compute)


def _relative(compute: Callable[..., Tensor], inputs: Tensors) -> Recipe:
    """Return a recipe in which each element's error counts against the element itself, however small that is."""
    return Recipe(inputs=inputs, compute=compute, scale=lambda exact: {"out": compute(*exact.values()).abs()})


def small_exponents(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return exp where its results are just above the smallest normal number of float32."""
    return _relative(torch.exp, {"x": draw("x", 4000, low=-86, high=-40)})


def small_logarithms(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return log of the smallest normal numbers of float32, and of those near 1."""
    near = 1 + draw("near", 2000, low=0.01, high=0.5)
    tiny = torch.exp2(draw("tiny", 2000, low=-125, high=-40))
    return _relative(torch.log, {"x": torch.cat([tiny, near])})


def wide_range(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a function of numbers between 1e-30 and 1e30."""
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "sqrt": lambda x, y: x.sqrt(), "mul": lambda x, y: x * y, "div": lambda x, y: x / y, "atan": lambda x, y: x.atan(),
        "add": lambda x, y: x + y, "maximum": torch.maximum, "minimum": torch.minimum,
    }  # fmt: skip
    compute = functions[params["name"]]
    x, y = (torch.exp2(draw(name, 4000, low=-60, high=60)) for name in ("x", "y"))
    return _relative(compute, {"x": x, "y": y})


RECIPES: dict[str, Builder] = {
    "function": function, "in_place": in_place, "small_exponents": small_exponents, "small_logarithms": small_logarithms,
    "wide_range": wide_range,
}  # fmt: skip
