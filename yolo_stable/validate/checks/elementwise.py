"""Activations, reductions and losses, at ordinary and extreme sizes."""

from __future__ import annotations

from typing import Any

from ..check import Check
from ..gate import Gate
from .gates import ELEMENTWISE, INTERPOLATION, LOSS, NORM_LONG, POOL, REDUCTION

_LAYOUTS = ("contiguous", "channels_last", "view")
_STRICT = {"strict": ELEMENTWISE["strict"]}
_EXTREME = {
    "strict": Gate(
        rms=1e-6, q=64, reason="finite, with a gradient between -1 and 1", source="definition; measured rms 3e-8"
    )
}
_DEGENERATE = {
    "strict": Gate(rms=1e-5, q=None, reason="boxes without width: terms cancel; measured rms 1.8e-7", source="CPU"),
}


def _check(
    name: str,
    gates: dict[str, Gate],
    *,
    layouts: tuple[str, ...] = ("contiguous", "view"),
    note: str = "",
    tier: str = "quick",
    **params: Any,
) -> Check:
    return Check(
        id=f"elementwise/{name}", family="elementwise", operation=name.replace("-", "_"), params=params, layouts=layouts,
        gates=gates, note=note, tier=tier,
    )  # fmt: skip


CHECKS = (
    _check("silu", ELEMENTWISE, layouts=_LAYOUTS),
    _check("gelu", ELEMENTWISE),
    _check("sigmoid", ELEMENTWISE),
    _check("relu", ELEMENTWISE),
    _check("hardswish", ELEMENTWISE),
    _check("exp", _STRICT),
    _check("log", _STRICT),
    _check("atan", _STRICT),
    _check("sqrt", _STRICT),
    _check("pow", _STRICT),
    _check("divide", _STRICT),
    _check("clamp", _STRICT),
    _check("add-mul", ELEMENTWISE, layouts=_LAYOUTS, note="residual connections, broadcast"),
    _check("softmax", LOSS),
    _check("log-softmax", LOSS),
    _check("dfl-integral", LOSS),
    _check("cross-entropy", LOSS),
    _check("bce", LOSS),
    _check("bce-extreme", _EXTREME, note="logits of 1e4 must not overflow"),
    _check("ciou", LOSS, note="computed with Ultralytics' own bbox_iou"),
    _check("ciou-degenerate", _DEGENERATE, note="boxes without width or height, identical and disjoint ones"),
    _check("sum", REDUCTION),
    _check("sum-million", REDUCTION),
    _check("norm-million", NORM_LONG, layouts=("contiguous",)),
    _check("mean-million", REDUCTION),
    _check("sum-channels-many", REDUCTION, layouts=_LAYOUTS, note="more than 50,000 elements a channel"),
    _check("sum-rows", REDUCTION),
    _check("var-mean-many", LOSS),
    _check("index-add", REDUCTION),
    _check("bilinear", INTERPOLATION, layouts=_LAYOUTS, note="multi_scale"),
    _check("bilinear-smaller", INTERPOLATION, layouts=_LAYOUTS),
    _check("bilinear-corners", INTERPOLATION),
    _check("nearest-odd", POOL, layouts=_LAYOUTS),
    _check("adaptive-avgpool", POOL, layouts=_LAYOUTS, note="the head of classifiers"),
    _check("maxpool-2x2", POOL, layouts=_LAYOUTS),
    _check("maxpool-3x3-s2", POOL, layouts=_LAYOUTS),
    _check("avgpool-odd", POOL, layouts=_LAYOUTS),
    _check("cross-entropy-mean", LOSS),
    _check("bce-mean", LOSS),
    _check("smooth-l1", LOSS),
    _check("mse", LOSS),
    _check("l1", LOSS),
    _check("nll", LOSS),
    _check("embedding", POOL),
    _check("einsum", REDUCTION, note="open-vocabulary heads"),
    _check("normalize", LOSS),
    _check("log-sum-exp", LOSS),
    _check("pairwise-distance", LOSS),
    _check("sum-cancelling", REDUCTION),
    _check("mean-channels", REDUCTION, layouts=_LAYOUTS),
    _check("var-mean", LOSS),
    _check("norm", REDUCTION),
    _check("cumsum", REDUCTION),
    _check("index-put-accumulate", REDUCTION, note="backward of indexing"),
    _check("scatter-add", REDUCTION),
    _check("gather-backward", REDUCTION),
    _check("maxpool", POOL, layouts=_LAYOUTS),
    _check("avgpool", POOL, layouts=_LAYOUTS),
    _check("upsample", POOL, layouts=_LAYOUTS),
    _check("concat", POOL, layouts=_LAYOUTS),
)
