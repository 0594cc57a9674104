"""Operations of the linear family."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Recipe
from . import cover_sums, products


def conv2d(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a convolution of x (n, c, h, w) with w (out, c / groups, k, k)."""
    c, k, groups = params["shape"][1], params["kernel"], params.get("groups", 1)
    stride, padding, dilation = params.get("stride", 1), params.get("padding", k // 2), params.get("dilation", 1)

    def compute(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv2d(x, w, b, stride, padding, dilation, groups)

    return _convolution(params, draw, compute, (params["out"], c // groups, k, k), c // groups * k * k)


def conv_transpose2d(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a transposed convolution of x (n, c, h, w) with w (c, out, k, k)."""
    c, k, stride = params["shape"][1], params["kernel"], params["stride"]

    def compute(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
        return F.conv_transpose2d(x, w, b, stride)

    return _convolution(params, draw, compute, (c, params["out"], k, k), c * k * k / stride**2)


def _convolution(
    params: Mapping[str, Any], draw: HashedDraw, compute: Callable[..., Tensor], weight: tuple[int, ...], terms: float
) -> Recipe:
    bound = 1 / math.sqrt(terms)
    inputs = {"x": draw("x", *params["shape"]), "w": draw("w", *weight, low=-bound, high=bound)}
    if params.get("bias"):
        inputs["b"] = draw("b", params["out"])
    return Recipe(inputs=inputs, compute=compute, gradients=tuple(inputs), scale="linear")


def matmul(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a product a @ b of (m, k) and (k, n), or of a batch of them; ``transposed`` says how each lies in memory."""
    *batch, m, k, n = params["shape"]
    how = params.get("transposed", "nn")
    a = draw("a", *batch, *((k, m) if how[0] == "t" else (m, k)))
    b = draw("b", *batch, *((n, k) if how[1] == "t" else (k, n))) / math.sqrt(k)

    def compute(a: Tensor, b: Tensor) -> Tensor:
        return (a.transpose(-1, -2) if how[0] == "t" else a) @ (b.transpose(-1, -2) if how[1] == "t" else b)

    return Recipe(inputs={"a": a, "b": b}, compute=compute, gradients=("a", "b"), scale="linear")


def matmul_range(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a product of numbers too large with numbers too small for float16; its result is of ordinary size."""
    m, k, n = params["shape"]
    power = params["power"]
    inputs = {"a": draw("a", m, k) * 2.0**power, "b": draw("b", k, n) * 2.0**-power}
    return Recipe(inputs=inputs, compute=lambda a, b: a @ b, scale="linear")


def linear(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a linear layer with bias: x (n, c), w (out, c), b (out)."""
    n, c = params["shape"]
    bound = 1 / math.sqrt(c)
    w = draw("w", params["out"], c, low=-bound, high=bound)
    inputs = {"x": draw("x", n, c), "w": w, "b": draw("b", params["out"])}

    return Recipe(inputs=inputs, compute=F.linear, gradients=("x", "w", "b"), scale="linear")


RECIPES = {
    "conv2d": conv2d, "conv_transpose2d": conv_transpose2d, "matmul": matmul, "matmul_range": matmul_range, "linear": linear,
    **products.RECIPES, **cover_sums.RECIPES,
}  # fmt: skip
