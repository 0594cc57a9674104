"""Operations of the elementwise family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Scale, Tensors
from . import cover_maps, cover_places, cover_pointwise, forms, large, ranges


def _function(
    compute: Callable[[Tensor], Tensor], low: float, high: float, shape: tuple[int, ...] = (4, 16, 12, 20)
) -> Builder:
    """Return a function of one element, with its gradient."""

    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        return Recipe(inputs={"x": draw("x", *shape, low=low, high=high)}, compute=compute, gradients=("x",))

    return build


def _two(
    compute: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, ...],
    other: tuple[int, ...],
    low: float,
    scale: Scale = "value",
) -> Builder:
    """Return a function of two tensors, with both gradients."""

    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        inputs = {"x": draw("x", *shape, low=low), "y": draw("y", *other, low=low)}
        return Recipe(inputs=inputs, compute=compute, gradients=("x", "y"), scale=scale)

    return build


def _reduction(compute: Callable[[Tensor], Tensor], shape: tuple[int, ...], *, linear: bool = True) -> Builder:
    """Return a sum of some kind: ``q`` is relative to the sum of absolute terms, as terms may cancel."""

    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        scale: Scale = (lambda inputs: {"out": compute(inputs["x"].abs())}) if linear else "value"
        return Recipe(inputs={"x": draw("x", *shape, low=0 if not linear else -0.5)}, compute=compute, scale=scale)

    return build


def sum_cancelling(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a sum whose terms cancel but for one."""

    def compute(x: Tensor) -> Tensor:
        return torch.cat([x, -x.flip(0)[:-1]]).sum().view(1)

    inputs = {"x": draw("x", 100_001, low=0)}
    return Recipe(inputs=inputs, compute=compute, scale=lambda inputs: {"out": 2 * inputs["x"].abs().sum().view(1)})


def _dfl_integral(x: Tensor) -> Tensor:
    """Return the expected distance of DFL: softmax over 16 bins times their numbers."""
    n, _, anchors = x.shape
    bins = torch.arange(16, dtype=x.dtype, device=x.device)
    return (x.contiguous().view(n, 4, 16, anchors).softmax(2) * bins.view(1, 1, 16, 1)).sum(2)


def cross_entropy(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return the cross entropy of DFL's bins."""
    inputs = {"x": draw("x", 512, 16, low=-15, high=15), "target": draw.integers("target", 512, below=16)}
    return Recipe(inputs=inputs, compute=partial(F.cross_entropy, reduction="none"), gradients=("x",))


def _bce(low: float, high: float, *, hard: bool) -> Builder:
    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        target = draw.integers("target", 4096, below=2).double() if hard else draw("target", 4096, low=0)
        inputs = {"x": draw("x", 4096, low=low, high=high), "target": target}
        compute = partial(F.binary_cross_entropy_with_logits, reduction="none")
        return Recipe(inputs=inputs, compute=compute, gradients=("x",))

    return build


def boxes(draw: HashedDraw, name: str, count: int, *, degenerate: bool) -> Tensor:
    """Return boxes as x1, y1, x2, y2; every third without size, and every third without width, when ``degenerate``."""
    centre = draw(f"{name}/centre", count, 2, low=0, high=40)
    size = draw(f"{name}/size", count, 2, low=1, high=20)
    if degenerate:
        size[::3], size[1::3, 0] = 0, 1e-7
    return torch.cat([centre - size / 2, centre + size / 2], 1)


def _ciou(*, degenerate: bool) -> Builder:
    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        from ultralytics.utils.metrics import bbox_iou

        p, t = (boxes(draw, name, 384, degenerate=degenerate) for name in ("p", "t"))
        if degenerate:
            p[200:230] = t[200:230]
            p[300:] += 500
        else:  # overlapping for the most part, as what the assigner gives
            p = (t + 0.3 * (p - t)).float().double()

        def compute(p: Tensor, t: Tensor) -> Tensor:
            return bbox_iou(p, t, xywh=False, CIoU=True)

        gradients = () if degenerate else ("p", "t")
        return Recipe(inputs={"p": p, "t": t}, compute=compute, gradients=gradients)

    return build


def _indexed(compute: Callable[[Tensor, Tensor], Tensor], *shape: int, gradients: tuple[str, ...] = ()) -> Builder:
    """Return a sum into 97 places by indices with many duplicates."""

    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        def scale(inputs: Tensors) -> Tensors:
            return {"out": compute(inputs["x"].abs(), inputs["index"])}

        inputs = {"x": draw("x", *shape), "index": draw.integers("index", shape[0], below=97)}
        return Recipe(inputs=inputs, compute=compute, gradients=gradients, scale=scale)

    return build


def gather_backward(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return ``gather`` with duplicate indices: its gradient is a sum into places."""
    inputs = {"x": draw("x", 4, 300), "index": draw.integers("index", 4, 3000, below=300)}

    def scale(inputs: Tensors) -> Tensors:
        ones = torch.ones_like(inputs["index"], dtype=torch.float64)
        return {"grad:x": torch.zeros_like(inputs["x"]).scatter_add(1, inputs["index"], ones) + 1}

    return Recipe(inputs=inputs, compute=lambda x, index: x.gather(1, index), gradients=("x",), scale=scale)


def _targets(loss: Callable[[Tensor, Tensor], Tensor], classes: int = 0) -> Builder:
    """Return a loss of 600 rows against targets: numbers, or the numbers of classes."""

    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        shape = (600, classes or 7)
        target = draw.integers("t", 600, below=classes) if classes else draw("t", *shape, low=0)
        inputs = {"x": draw("x", *shape, low=-4, high=4), "t": target}
        return Recipe(inputs=inputs, compute=lambda x, t: loss(x, t).view(1), gradients=("x",))

    return build


def embedding(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return rows by number, some of them several times: the gradient is a sum."""
    inputs = {"x": draw("x", 50, 17), "index": draw.integers("index", 400, below=50)}
    return Recipe(inputs=inputs, compute=lambda x, index: F.embedding(index, x), gradients=("x",))


def _var_mean(x: Tensor) -> Tensor:
    return torch.stack(torch.var_mean(x, 1))


RECIPES: dict[str, Builder] = {
    "silu": _function(F.silu, -20, 20),
    "gelu": _function(F.gelu, -8, 8),
    "sigmoid": _function(torch.sigmoid, -30, 30),
    "relu": _function(torch.relu, -3, 3),
    "hardswish": _function(F.hardswish, -5, 5),
    "exp": _function(torch.exp, -20, 10),
    "log": _function(torch.log, 1e-6, 5),
    "atan": _function(torch.atan, -50, 50),
    "sqrt": _function(torch.sqrt, 1e-3, 100),
    "pow": _function(lambda x: x.pow(6.0) + x.pow(0.5), 1e-2, 1.5),
    "divide": _two(torch.div, (64, 400), (64, 400), 0.1),
    "clamp": _function(lambda x: x.clamp(-0.5, 0.75), -2, 2),
    "add_mul": _two(lambda x, y: x * y + x, (4, 16, 12, 20), (1, 16, 1, 1), -1),
    "softmax": _function(lambda x: x.softmax(1), -15, 15, (512, 16, 4)),
    "log_softmax": _function(lambda x: x.log_softmax(1), -15, 15, (512, 16, 4)),
    "dfl_integral": _function(_dfl_integral, -10, 10, (4, 64, 100)),
    "cross_entropy": cross_entropy,
    "bce": _bce(-12, 12, hard=False),
    "bce_extreme": _bce(-1e4, 1e4, hard=True),
    "ciou": _ciou(degenerate=False),
    "ciou_degenerate": _ciou(degenerate=True),
    "sum": _reduction(lambda x: x.sum().view(1), (50000,)),
    "sum_million": _reduction(lambda x: x.sum().view(1), (1_000_000,)),
    "sum_cancelling": sum_cancelling,
    "mean_channels": _reduction(lambda x: x.mean((0, 2, 3)), (4, 16, 20, 20)),
    "var_mean": _reduction(_var_mean, (64, 4096), linear=False),
    "norm": _reduction(lambda x: x.norm().view(1), (30_000,), linear=False),
    "norm_million": _reduction(lambda x: x.norm().view(1), (1_000_003,), linear=False),
    "mean_million": _reduction(lambda x: x.mean().view(1), (1_000_003,)),
    "sum_channels_many": _reduction(lambda x: x.sum((0, 2, 3)), (2, 5, 160, 161)),
    "sum_rows": _reduction(lambda x: torch.stack([x.sum(1), x.mean(1), x.sum(-1)]), (40, 8400)),
    "var_mean_many": _reduction(_var_mean, (5, 51_521), linear=False),
    "index_add": _indexed(
        lambda x, index: x.new_zeros(97, 13).index_add(0, index, x, alpha=0.5), 2000, 13, gradients=("x",)
    ),
    "bilinear": _function(lambda x: F.interpolate(x, size=(25, 31), mode="bilinear", align_corners=False), -1, 1),
    "bilinear_smaller": _function(lambda x: F.interpolate(x, size=(7, 9), mode="bilinear", align_corners=False), -1, 1),
    "bilinear_corners": _function(
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), -1, 1
    ),
    "nearest_odd": _function(lambda x: F.interpolate(x, size=(17, 29), mode="nearest"), -1, 1),
    "adaptive_avgpool": _function(lambda x: F.adaptive_avg_pool2d(x, 1), -1, 1),
    "maxpool_2x2": _function(lambda x: F.max_pool2d(x, 2), -1, 1, (3, 5, 13, 17)),
    "maxpool_3x3_s2": _function(lambda x: F.max_pool2d(x, 3, 2, 1), -1, 1, (3, 5, 13, 17)),
    "avgpool_odd": _function(lambda x: F.avg_pool2d(x, 3, 2, 1), -1, 1, (3, 5, 13, 17)),
    "cross_entropy_mean": _targets(lambda x, t: F.cross_entropy(x, t, label_smoothing=0.1), 41),
    "nll": _targets(F.nll_loss, 41),
    "bce_mean": _targets(F.binary_cross_entropy_with_logits),
    "smooth_l1": _targets(lambda x, t: F.smooth_l1_loss(x, t, beta=0.7)),
    "mse": _targets(F.mse_loss),
    "l1": _targets(F.l1_loss),
    "embedding": embedding,
    "einsum": _two(lambda x, y: torch.einsum("bchw,bkc->bkhw", x, y), (2, 33, 9, 7), (2, 5, 33), -1, "linear"),
    "normalize": _function(lambda x: F.normalize(x, dim=1), -1, 1),
    "log_sum_exp": _function(lambda x: x.logsumexp(1), -90, 90, (40, 77)),
    "pairwise_distance": _two(lambda x, y: torch.cdist(x, y, p=1.0), (60, 4), (31, 4), -1),
    "cumsum": _reduction(lambda x: x.cumsum(1), (16, 4096)),
    "index_put_accumulate": _indexed(lambda x, index: x.new_zeros(97).index_put((index,), x, accumulate=True), 20000),
    "scatter_add": _indexed(lambda x, index: x.new_zeros(97).scatter_add(0, index, x), 20000),
    "gather_backward": gather_backward,
    "maxpool": _function(lambda x: F.max_pool2d(x, 5, 1, 2), -1, 1),
    "avgpool": _function(lambda x: F.avg_pool2d(x, 2, 2), -1, 1),
    "upsample": _function(lambda x: F.interpolate(x, scale_factor=2, mode="nearest"), -1, 1),
    "concat": _two(lambda x, y: torch.cat([x, y], 1), (2, 16, 20, 20), (2, 8, 20, 20), -1),
    **ranges.RECIPES,
    **forms.RECIPES,
    **large.RECIPES,
    **cover_maps.RECIPES,
    **cover_places.RECIPES,
    **cover_pointwise.RECIPES,
}
