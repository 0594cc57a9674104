"""Operations of the norm family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import Draw
from ..recipe import Recipe
from . import cover_maps

_EPS, _MOMENTUM = 1e-3, 0.03
"""Ultralytics' values."""
_KEPT = ("weight", "bias", "mean", "var")


def batch_norm(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return a BatchNorm of x (n, c, h, w) with its running statistics as they are afterwards."""
    n, c, h, w = params["shape"]
    training = params["training"]
    inputs = {
        "x": draw("x", n, c, h, w) * params.get("factor", 1.0) + params.get("offset", 0.0),
        "weight": draw("weight", c, low=0.5, high=1.5),
        "bias": draw("bias", c),
        "mean": draw("mean", c, low=-0.1, high=0.1),
        "var": draw("var", c, low=0.5, high=1.5),
    }

    def compute(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> dict[str, Tensor]:
        mean, var = mean.clone(), var.clone()
        out = F.batch_norm(x, mean, var, weight, bias, training, _MOMENTUM, _EPS)
        return {"out": out, **({"running_mean": mean, "running_var": var} if training else {})}

    return Recipe(inputs=inputs, compute=compute, gradients=("x", "weight", "bias"), in_float32=_KEPT, plain=_KEPT)


def layer_norm(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return a LayerNorm of x (n, c)."""
    n, c = params["shape"]
    inputs = {"x": draw("x", n, c), "weight": draw("weight", c, low=0.5, high=1.5), "bias": draw("bias", c)}

    def compute(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.layer_norm(x, (c,), weight, bias, 1e-5)

    return Recipe(inputs=inputs, compute=compute, gradients=("x", "weight", "bias"))


def group_norm(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return a GroupNorm of x (n, c, h, w)."""
    n, c, h, w = params["shape"]
    inputs = {"x": draw("x", n, c, h, w), "weight": draw("weight", c, low=0.5, high=1.5), "bias": draw("bias", c)}

    def compute(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.group_norm(x, params["groups"], weight, bias)

    return Recipe(inputs=inputs, compute=compute, gradients=("x", "weight", "bias"), plain=("weight", "bias"))


RECIPES = {"batch_norm": batch_norm, "layer_norm": layer_norm, "group_norm": group_norm, **cover_maps.RECIPES}
