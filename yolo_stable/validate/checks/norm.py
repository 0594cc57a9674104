"""BatchNorm with gradients and running statistics, and LayerNorm."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..check import Check, check_of
from .gates import NORM, NORM_OFFSET, NORM_WIDE

_LAYOUTS = ("contiguous", "channels_last", "view", "mixed", "chunk", "transposed")
_QUICK = ("contiguous/strict", "channels_last/strict", "view/strict", "contiguous/bfloat16", "contiguous/float16")
_EVERY = (*_QUICK, *(f"{layout}/strict" for layout in _LAYOUTS[3:]), "channels_last/bfloat16")
_STRICT = {"strict": NORM["strict"]}
_WIDE = {"strict": NORM_WIDE["strict"], "bfloat16": NORM["bfloat16"]}


_norm = partial(check_of, "norm", gates=NORM)


def _bn(name: str, shape: tuple[int, ...], **more: Any) -> Check:
    return _norm(name, "batch_norm", **{"layouts": _LAYOUTS[:3], "quick": _QUICK, "shape": shape, **more})


CHECKS = (
    _bn("bn-train", (8, 32, 20, 20), training=True, note="pytorch#175189, ROCm/pytorch#1561: channels_last"),
    _bn("bn-eval", (8, 32, 20, 20), training=False),
    _bn("bn-1x1", (8, 64, 1, 1), training=True, note="MIOpen#248: NaN at 1x1"),
    _bn("bn-batch2", (2, 16, 5, 5), training=True, note="rocm-libraries#2344: few numbers a channel"),
    _bn("bn-odd", (3, 13, 33, 19), training=True, gates=_STRICT),
    _bn("bn-many", (8, 6, 81, 80), training=True, gates=_WIDE, note="more than 50,000 elements a channel"),
    _bn("bn-wide", (2, 5, 160, 161), training=True, gates=NORM_WIDE, tier="default", note="channels larger than a block"),
    _bn("bn-offset", (8, 32, 20, 20), training=True, offset=25.0, gates=NORM_OFFSET, note="mean far above the deviation"),
    _bn("bn-small-variance", (8, 16, 20, 20), training=True, factor=0.01, gates=_STRICT, note="a wrong epsilon shows"),
    _bn("bn-layouts", (3, 13, 10, 11), training=True, layouts=_LAYOUTS, quick=_EVERY),
    _bn("bn-eval-layouts", (3, 13, 10, 11), training=False, layouts=_LAYOUTS, quick=_EVERY),
    _bn("bn-mean-of-three", (4, 9, 12, 13), training=True, offset=3.0, note="the variance of 16 bits as a difference of squares"),
    _bn("bn-wide-100k", (2, 2, 257, 258), training=True, gates=NORM_WIDE, quick=_QUICK[:1], note="132,000 elements a channel"),
    _bn("bn-million", (2, 2, 513, 512), training=True, offset=40.0, gates=NORM_OFFSET, tier="default", quick=(),
        layouts=_LAYOUTS[:1], note="a mean far above the deviation, over more than 2^20 numbers"),
    _norm("layer-norm", layouts=("contiguous", "view"), shape=(200, 128)),
    _norm("layer-norm-odd", "layer_norm", layouts=("contiguous", "view"), gates=_STRICT, shape=(77, 331)),
    _norm("group-norm", layouts=("contiguous", "channels_last"), gates=_STRICT, shape=(4, 32, 12, 12), groups=8),
)  # fmt: skip
