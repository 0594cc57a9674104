"""Where numbers go: reductions of which one number matters, indices, orders, and what is drawn by chance."""

from __future__ import annotations

from ..check import Check
from .gates import EXACT

_REDUCTIONS = (
    "sum", "norm", "max", "amax", "argmax", "min", "argmin", "any", "all", "count", "cumsum", "nonzero", "rows",
    "columns", "foreach", "dot", "mean", "topk", "sort", "cummax",
)  # fmt: skip
_OPERATIONS = (
    "topk_anchors", "sort_anchors", "argmax_anchors", "nms", "whole_numbers", "casts", "moved", "made",
)  # fmt: skip


def _check(name: str, operation: str, /, **params: str) -> Check:
    layouts = ("contiguous", "channels_last", "view") if operation == "moved" else ("contiguous",)
    return Check(
        id=f"exact/{name}", family="exact", operation=operation, params=params, layouts=layouts, gates=EXACT,
        quick=tuple(f"{layout}/exact" for layout in layouts),
    )  # fmt: skip


CHECKS = (
    *(_check(f"one-of-many-{name}", "one_of_many", name=name) for name in _REDUCTIONS),
    *(_check(name.replace("_", "-"), name) for name in _OPERATIONS),
    _check("chance", "chance"),
    _check("dropout-backward", "dropout_backward"),
)
