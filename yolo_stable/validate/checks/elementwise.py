"""Activations, reductions and losses, at ordinary and extreme sizes."""

from __future__ import annotations

from functools import partial

from ..check import check_of
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


_check = partial(check_of, "elementwise", layouts=("contiguous", "view"))

CHECKS = (
    _check("silu", gates=ELEMENTWISE, layouts=_LAYOUTS),
    _check("gelu", gates=ELEMENTWISE),
    _check("sigmoid", gates=ELEMENTWISE),
    _check("relu", gates=ELEMENTWISE),
    _check("hardswish", gates=ELEMENTWISE),
    _check("exp", gates=_STRICT),
    _check("log", gates=_STRICT),
    _check("atan", gates=_STRICT),
    _check("sqrt", gates=_STRICT),
    _check("pow", gates=_STRICT),
    _check("divide", gates=_STRICT),
    _check("clamp", gates=_STRICT),
    _check("add-mul", gates=ELEMENTWISE, layouts=_LAYOUTS, note="residual connections, broadcast"),
    _check("softmax", gates=LOSS),
    _check("log-softmax", gates=LOSS),
    _check("dfl-integral", gates=LOSS),
    _check("cross-entropy", gates=LOSS),
    _check("bce", gates=LOSS),
    _check("bce-extreme", gates=_EXTREME, note="logits of 1e4 must not overflow"),
    _check("ciou", gates=LOSS, note="computed with Ultralytics' own bbox_iou"),
    _check("ciou-degenerate", gates=_DEGENERATE, note="boxes without width or height, identical and disjoint ones"),
    _check("sum", gates=REDUCTION),
    _check("sum-million", gates=REDUCTION),
    _check("norm-million", gates=NORM_LONG, layouts=("contiguous",)),
    _check("mean-million", gates=REDUCTION),
    _check("sum-channels-many", gates=REDUCTION, layouts=_LAYOUTS, note="more than 50,000 elements a channel"),
    _check("sum-rows", gates=REDUCTION),
    _check("var-mean-many", gates=LOSS),
    _check("index-add", gates=REDUCTION),
    _check("bilinear", gates=INTERPOLATION, layouts=_LAYOUTS, note="multi_scale"),
    _check("bilinear-smaller", gates=INTERPOLATION, layouts=_LAYOUTS),
    _check("bilinear-corners", gates=INTERPOLATION),
    _check("nearest-odd", gates=POOL, layouts=_LAYOUTS),
    _check("adaptive-avgpool", gates=POOL, layouts=_LAYOUTS, note="the head of classifiers"),
    _check("maxpool-2x2", gates=POOL, layouts=_LAYOUTS),
    _check("maxpool-3x3-s2", gates=POOL, layouts=_LAYOUTS),
    _check("avgpool-odd", gates=POOL, layouts=_LAYOUTS),
    _check("cross-entropy-mean", gates=LOSS),
    _check("bce-mean", gates=LOSS),
    _check("smooth-l1", gates=LOSS),
    _check("mse", gates=LOSS),
    _check("l1", gates=LOSS),
    _check("nll", gates=LOSS),
    _check("embedding", gates=POOL),
    _check("einsum", gates=REDUCTION, note="open-vocabulary heads"),
    _check("normalize", gates=LOSS),
    _check("log-sum-exp", gates=LOSS),
    _check("pairwise-distance", gates=LOSS),
    _check("sum-cancelling", gates=REDUCTION),
    _check("mean-channels", gates=REDUCTION, layouts=_LAYOUTS),
    _check("var-mean", gates=LOSS),
    _check("norm", gates=REDUCTION),
    _check("cumsum", gates=REDUCTION),
    _check("index-put-accumulate", gates=REDUCTION, note="backward of indexing"),
    _check("scatter-add", gates=REDUCTION),
    _check("gather-backward", gates=REDUCTION),
    _check("maxpool", gates=POOL, layouts=_LAYOUTS),
    _check("avgpool", gates=POOL, layouts=_LAYOUTS),
    _check("upsample", gates=POOL, layouts=_LAYOUTS),
    _check("concat", gates=POOL, layouts=_LAYOUTS),
)
