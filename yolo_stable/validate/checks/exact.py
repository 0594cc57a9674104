"""Operations on integers, indices and layouts, in which nothing is rounded; and NaN in others."""

from __future__ import annotations

from functools import partial

from ..check import check_of
from .gates import CLASSES, EXACT

_exact = partial(check_of, "exact", gates=EXACT, layouts=("contiguous", "view"))
_FOUR = ("contiguous", "channels_last", "view")

CHECKS = (
    _exact("scatter-add-int8", note="TaskAlignedAssigner counts anchors so; duplicates must add up"),
    _exact("scatter-one-hot"),
    _exact("gather"),
    _exact("index-select"),
    _exact("index-put"),
    _exact("argmax"),
    _exact("amax"),
    _exact("topk"),
    _exact("topk-ties", note="order of equal values is not portable; values and validity are"),
    _exact("sort"),
    _exact("unique"),
    _exact("nonzero"),
    _exact("boolean-index"),
    _exact("repeat-interleave"),
    _exact("cumsum-int"),
    _exact("where-compare"),
    _exact("concat", layouts=_FOUR),
    _exact("slice", layouts=_FOUR),
    _exact("pad", layouts=_FOUR),
    _exact("memory-format", layouts=_FOUR),
    _exact("upsample-nearest", layouts=_FOUR),
    _exact("maxpool", layouts=_FOUR),
    _exact("round-trip-permute", layouts=_FOUR),
    *(
        check_of("exact", f"nan-{name}", "semantics", gates=EXACT if name == "predicates" else CLASSES, name=name, note=note)
        for name, note in (
            ("clamp", "pytorch#120899: NaN became the bound, and CIoU finite"), ("clamp_min", ""), ("minimum", ""),
            ("maximum", ""), ("relu", ""),
            ("silu", ""), ("sigmoid", ""), ("maxpool", ""), ("amax", ""), ("sum", ""), ("topk", ""), ("batch_norm", ""),
            ("arithmetic", "inf - inf, 0 * inf, 0 / 0"), ("predicates", ""), ("matmul", ""), ("conv", ""), ("where", ""),
        )
    ),
)  # fmt: skip
