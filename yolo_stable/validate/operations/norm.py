"""Operations of the norm family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Recipe, Tensors
from . import cover_maps

_EPS, _MOMENTUM = 1e-3, 0.03
"""Ultralytics' values."""
_BY = ("x", "weight", "bias")
_KEPT = ("weight", "bias", "mean", "var")


def batch_norm(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a BatchNorm of x (n, c, h, w) with its running statistics as they are afterwards."""
    c, training = params["shape"][1], params["training"]
    inputs = {
        "x": draw("x", *params["shape"]) * params.get("factor", 1.0) + params.get("offset", 0.0),
        "weight": draw("weight", c, low=0.5, high=1.5),
        "bias": draw("bias", c),
        "mean": draw("mean", c, low=-0.1, high=0.1),
        "var": draw("var", c, low=0.5, high=1.5),
    }

    def compute(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Tensors:
        mean, var = mean.clone(), var.clone()
        out = F.batch_norm(x, mean, var, weight, bias, training, _MOMENTUM, _EPS)
        return {"out": out, **({"running_mean": mean, "running_var": var} if training else {})}

    return Recipe(inputs=inputs, compute=compute, gradients=_BY, in_float32=_KEPT, plain=_KEPT)


def layer_norm(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a LayerNorm of x (n, c)."""
    c = params["shape"][1]
    inputs = _affine(params, draw)
    return Recipe(inputs=inputs, compute=lambda x, *by: F.layer_norm(x, (c,), *by, eps=1e-5), gradients=_BY)


def group_norm(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a GroupNorm of x (n, c, h, w)."""
    groups = params["groups"]
    inputs = _affine(params, draw)
    return Recipe(inputs=inputs, compute=lambda x, *by: F.group_norm(x, groups, *by), gradients=_BY, plain=_BY[1:])


def _affine(params: Mapping[str, Any], draw: HashedDraw) -> Tensors:
    c = params["shape"][1]
    return {"x": draw("x", *params["shape"]), "weight": draw("weight", c, low=0.5, high=1.5), "bias": draw("bias", c)}


RECIPES = {"batch_norm": batch_norm, "layer_norm": layer_norm, "group_norm": group_norm, **cover_maps.RECIPES}
