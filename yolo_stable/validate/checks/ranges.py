"""Functions of one element over the whole range that training meets, in place, and at odd sizes."""

from __future__ import annotations

from functools import partial

from ..check import check_of
from ..gate import Gate
from .gates import ELEMENTWISE, LOSS

_ORDINARY = (4, 16, 12, 20)
_ODD = (3, 5, 13, 7)
"""No side is a multiple of 4: kernels have a tail in each row."""
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
"""Their gradients are differences of numbers near 1."""
_LOW = (
    "silu", "gelu", "sigmoid", "tanh", "softplus", "mish", "hardswish", "hardsigmoid", "leaky_relu", "relu6", "elu",
    "logsigmoid", "erf", "sin", "cos", "abs", "neg", "rsqrt", "log1p", "softmax", "log_softmax",
)  # fmt: skip
"""Float16 can hold their results and gradients."""
_RELATIVE = {
    "strict": Gate(rms=2e-6, q=64, reason="each element against itself: measured q up to 2", source="CPU"),
}

_QUICK = ("contiguous/strict", "channels_last/strict", "contiguous/bfloat16", "contiguous/float16")
_check = partial(check_of, "elementwise", gates={"strict": ELEMENTWISE["strict"]}, quick=_QUICK)

CHECKS = (
    *(
        _check(f"range-{name}", "function", name=name, shape=_ORDINARY,
               gates={"strict": (LOSS if name in _CANCEL else ELEMENTWISE)["strict"], "bfloat16": ELEMENTWISE["bfloat16"],
                      **({"float16": ELEMENTWISE["float16"]} if name in _LOW else {})})
        for name in _FUNCTIONS
    ),
    *(_check(f"odd-{name}", "function", name=name, shape=_ODD, gates=LOSS, layouts=("contiguous", "channels_last"))
      for name in ("silu", "sigmoid", "leaky_relu", "gelu")),
    *(_check(f"in-place-{name}", "in_place", name=name, shape=_ODD, layouts=("contiguous", "view")) for name in _IN_PLACE),
    _check("small-exponents", "small_exponents", gates=_RELATIVE),
    _check("small-logarithms", "small_logarithms", gates=_RELATIVE),
    *(_check(f"wide-{name}", "wide_range", name=name, gates=_RELATIVE)
      for name in ("sqrt", "mul", "div", "atan", "add", "maximum", "minimum")),
)  # fmt: skip
