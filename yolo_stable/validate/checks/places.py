"""Places of numbers: reductions in which one number matters, indices, orders, and random numbers."""

from __future__ import annotations

from typing import Any

from ..check import Check, check_of
from .gates import EXACT, EXACT_LOW

_REDUCTIONS = (
    "sum", "norm", "max", "amax", "argmax", "min", "argmin", "any", "all", "count", "cumsum", "nonzero", "rows",
    "columns", "foreach", "dot", "mean", "topk", "sort", "cummax",
)  # fmt: skip
_OPERATIONS = (
    "topk_anchors", "sort_anchors", "argmax_anchors", "nms", "whole_numbers", "counters", "casts", "moved", "made", "orders",
)  # fmt: skip

_IN_EVERY_TYPE = ("moved", "orders")
_EVERY = ("contiguous", "channels_last", "view", "chunk", "transposed")


def _check(name: str, operation: str, /, **params: Any) -> Check:
    layouts = _EVERY if operation in _IN_EVERY_TYPE else ("contiguous",)
    gates = EXACT_LOW if operation in _IN_EVERY_TYPE else EXACT
    quick = (*(f"{layout}/exact" for layout in layouts), "contiguous/float16", "contiguous/bfloat16")
    return check_of("exact", name, operation, layouts=layouts, gates=gates, quick=quick, **params)


CHECKS = (
    *(_check(f"one-of-many-{name}", "one_of_many", name=name) for name in _REDUCTIONS),
    *(_check(name.replace("_", "-"), name) for name in _OPERATIONS),
    _check("chance", "chance"),
    _check("dropout-backward", "dropout_backward"),
)
