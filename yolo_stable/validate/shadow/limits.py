"""Limits of the operations of a shadowed step, as data with reason and source."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .operation_kinds import base_of

_FLOORS = {torch.float32: 2.0**-110, torch.bfloat16: 2.0**-110, torch.float16: 2.0**-24}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The largest error of one element; the parts are added up."""

    terms: float
    """Roundoffs of float32, in which also lower precisions are added up, of the terms."""
    each: float = 0.0
    """Roundoffs of float32 of the terms for each element that goes into one: a sum that is kept in one number, which grows
    beyond its terms, loses up to half of one at each step."""
    rounding: float = 1.02
    """Roundoffs of a lower precision of the result itself: 1 for rounding it once."""
    low: float = 0.0
    """Roundoffs of a lower precision of the terms, where parts of the result are rounded as well."""

    neighbours: float = 0.0
    """Roundoffs of a lower precision of a typical result: a bias may be added to what was rounded before."""
    spread: float | None = None
    """Largest typical error in a lower precision, in roundoffs of a typical result: 0.3 to 0.45 for rounding once, times
    sqrt(1 + p / 2) for p partial sums that are rounded as well."""
    by_inputs: bool = False
    """Whether a float32 result of lower inputs may be rounded as they are."""

    def floor(self, dtype: torch.dtype) -> float:
        """Return what may be lost whatever the result is: what is flushed to zero."""
        return _FLOORS.get(dtype, 0.0)


_PLACES = Limits(terms=1024)
"""Where results are taken from is rounded: measured 26 roundoffs."""
_ADDED = Limits(terms=256, low=8.0)
"""Gradients of windows that overlap are added up in 16 bits, nine at most."""
_PRODUCTS = Limits(terms=1024, rounding=2.0, neighbours=3.0, spread=1.2)
"""Winograd's and other fast convolutions lose more than sums do: MIOpenDriver allows rms 2e-5."""
_TAILS = Limits(terms=256, low=2.0)
"""1 + erf(x) at -3: measured 24 roundoffs."""

KINDS = {
    "pointwise": Limits(terms=64, low=2.0),
    "linear": Limits(terms=256, rounding=2.0, neighbours=3.0, spread=1.2),
    "general": Limits(terms=256, each=1 / 64, low=2.0),
}
"""Measured on a CPU, at most half of these: a few seeds, denormals flushed, without oneDNN; on accelerators not yet."""
OPERATIONS = {
    "convolution": _PRODUCTS,
    "convolution_backward": Limits(terms=1024, rounding=2.0, neighbours=3.0, low=16.0, spread=3.0),
    **dict.fromkeys(
        ("max_pool2d_with_indices_backward", "upsample_nearest2d_backward", "index_add", "scatter_add", "index_put"),
        _ADDED,
    ),
    **dict.fromkeys(
        ("upsample_bilinear2d", "upsample_bilinear2d_backward", "upsample_bicubic2d", "upsample_bicubic2d_backward"),
        _PLACES,
    ),
    **dict.fromkeys(("gelu", "gelu_backward", "mish", "mish_backward"), _TAILS),
    "adaptive_max_pool2d_backward": _ADDED,
    **dict.fromkeys(
        ("native_batch_norm", "binary_cross_entropy_with_logits"), Limits(terms=1024, each=1 / 64, low=2.0)
    ),
    "native_batch_norm_backward": Limits(terms=1024, each=1 / 64, low=4.0, by_inputs=True),
    "native_layer_norm_backward": Limits(terms=1024, each=1 / 64, low=8.0, by_inputs=True),
}
"""Those that lose more than their kind. Without oneDNN torch adds up the taps of a kernel in bfloat16: with 49 taps one element
is off by three times what one rounding explains."""


def limits_of(name: str, kind: str) -> Limits:
    """Return the limits of an operation."""
    return OPERATIONS.get(base_of(name), KINDS[kind])
