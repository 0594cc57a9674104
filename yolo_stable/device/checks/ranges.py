"""Functions of one element over the whole range that training meets, in place, and at odd and large sizes."""

from __future__ import annotations

from typing import Any

from ..check import Check
from ..gate import Gate
from .gates import ELEMENTWISE, LOSS

_ORDINARY = (4, 16, 12, 20)
_ODD = (3, 5, 13, 7)
"""No side is a multiple of 4: kernels have a tail in each row."""
_LARGE = (2, 16, 160, 161)
"""More elements than one launch of many kernels has threads."""
_FUNCTIONS = (
    "silu", "gelu", "sigmoid", "tanh", "softplus", "mish", "hardswish", "hardsigmoid", "leaky_relu", "relu6", "elu",
    "logsigmoid", "erf", "sin", "cos", "atan", "abs", "square", "neg", "rsqrt", "reciprocal", "log1p", "expm1", "tan",
    "softmax", "log_softmax",
)  # fmt: skip
_IN_PLACE = (
    "silu", "relu", "leaky_relu", "hardswish", "sigmoid", "tanh", "clamp", "add", "mul", "sub", "div", "addcmul",
    "lerp", "fill", "zero", "masked_fill", "exp", "copy",
)  # fmt: skip
_CANCEL = ("softmax", "log_softmax", "sigmoid", "logsigmoid", "mish")
"""Their gradients are differences of what is near 1."""
_RELATIVE = {
    "strict": Gate(rms=2e-6, q=64, reason="each element against itself: measured q up to 2", source="CPU"),
}


def _check(
    name: str, operation: str, /, *, gates: Any = None, layouts: tuple[str, ...] = ("contiguous",), **params: Any
) -> Check:
    return Check(
        id=f"elementwise/{name}", family="elementwise", operation=operation, params=params, layouts=layouts,
        gates=gates or {"strict": ELEMENTWISE["strict"]},
    )  # fmt: skip


CHECKS = (
    *(
        _check(f"range-{name}", "function", name=name, shape=_ORDINARY,
               gates=LOSS if name in _CANCEL else {p: ELEMENTWISE[p] for p in ("strict", "bfloat16")})
        for name in _FUNCTIONS
    ),
    *(_check(f"odd-{name}", "function", name=name, shape=_ODD, gates=LOSS, layouts=("contiguous", "channels_last"))
      for name in ("silu", "sigmoid", "leaky_relu", "gelu")),
    *(_check(f"large-{name}", "function", name=name, shape=_LARGE, gates=LOSS) for name in ("silu", "sigmoid")),
    *(_check(f"in-place-{name}", "in_place", name=name, shape=_ODD, layouts=("contiguous", "view")) for name in _IN_PLACE),
    *(_check(f"large-in-place-{name}", "in_place", name=name, shape=_LARGE) for name in ("silu", "mul")),
    _check("small-exponents", "small_exponents", gates=_RELATIVE),
    _check("small-logarithms", "small_logarithms", gates=_RELATIVE),
    *(_check(f"wide-{name}", "wide_range", name=name, gates=_RELATIVE)
      for name in ("sqrt", "mul", "div", "atan", "add", "maximum", "minimum")),
)  # fmt: skip
