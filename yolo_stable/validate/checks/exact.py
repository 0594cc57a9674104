"""Operations on integers, indices and layouts, in which nothing is rounded; and what becomes of NaN."""

from __future__ import annotations

from typing import Any

from ..check import Check
from .gates import CLASSES, EXACT

_LAYOUTS = ("contiguous", "view")


def _exact(
    name: str, *, layouts: tuple[str, ...] = _LAYOUTS, tier: str = "quick", note: str = "", **params: Any
) -> Check:
    return Check(
        id=f"exact/{name}", family="exact", operation=name.replace("-", "_"), params=params, layouts=layouts, gates=EXACT,
        tier=tier, note=note,
    )  # fmt: skip


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
        Check(id=f"exact/nan-{name}", family="exact", operation="semantics", params={"name": name},
        gates=EXACT if name == "predicates" else CLASSES, note=note)
        for name, note in (
            ("clamp", "pytorch#120899: NaN became the bound, and CIoU finite"), ("clamp_min", ""), ("minimum", ""),
            ("maximum", ""), ("relu", ""),
            ("silu", ""), ("sigmoid", ""), ("maxpool", ""), ("amax", ""), ("sum", ""), ("topk", ""), ("batch_norm", ""),
            ("arithmetic", "inf - inf, 0 * inf, 0 / 0"), ("predicates", ""), ("matmul", ""), ("conv", ""), ("where", ""),
        )
    ),
)  # fmt: skip
