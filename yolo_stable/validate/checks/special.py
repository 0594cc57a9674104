"""NaN, infinities, zeros and overflow: where they must come out, and where not."""

from __future__ import annotations

from typing import Any

from ..check import Check, check_of
from ..gate import Gate
from .gates import CLASSES, EXACT, MASKS, SPECIAL

FUNCTIONS = (
    "exp", "log", "log1p", "expm1", "sqrt", "rsqrt", "reciprocal", "square", "cube", "root", "sixth", "negative-power",
    "scalar-base", "atan", "tanh", "sigmoid", "relu", "leaky", "abs", "neg", "floor", "ceil", "round", "trunc", "erf", "softplus",
    "add", "sub", "mul", "divide", "numbers", "bounds", "in-place", "fused", "choose", "equal", "rows", "whole", "copies", "maps",
)  # fmt: skip
BACKWARD = (
    "conv", "mm", "bmm", "linear", "silu", "sigmoid", "relu", "gelu", "softmax", "log_softmax", "max_pool", "avg_pool", "nearest",
    "batch_norm", "layer_norm", "sum", "mul", "div", "cat", "index", "slice", "smooth_l1", "bce",
)  # fmt: skip
_PRECISIONS = ("strict", "float16", "bfloat16")
_QUICK = tuple(f"contiguous/{precision}" for precision in _PRECISIONS)


def _check(name: str, operation: str, gates: dict[str, Gate], /, **params: Any) -> Check:
    return check_of("exact", name, operation, gates=gates, quick=_QUICK, **params)


_CLASSES: dict[str, Gate] = dict.fromkeys(_PRECISIONS, CLASSES["exact"])

CHECKS = (
    *(_check(f"special-{name}", "special", SPECIAL, name=name) for name in FUNCTIONS),
    *(_check(f"broken-gradient-{name}", "broken_gradient", _CLASSES, name=name) for name in BACKWARD),
    _check("masks", "masks", MASKS),
    _check("overflow", "overflow", {"float16": EXACT["exact"]}),
)
