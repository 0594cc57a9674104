"""Functions of several tensors in the forms in which training calls them, in every layout."""

from __future__ import annotations

from ..check import check_of
from .gates import ELEMENTWISE, FORMS, LOW_SUMS

NAMES = (
    "residual", "scaled-add", "scaled-sub", "product", "last-one", "first-one", "middle-one", "fewer", "pairs", "scalars",
    "lerp", "addcmul", "powers", "angles", "bounds", "rows", "columns", "channels", "negative", "bce", "small", "pieces",
    "joined", "chosen", "pools", "resize", "activations", "grid",
)  # fmt: skip
LOW = (
    "residual", "scaled-add", "scaled-sub", "product", "first-one", "fewer", "pairs", "lerp", "rows", "columns",
    "channels", "pieces", "chosen", "pools", "resize", "activations",
)  # fmt: skip
"""So few steps that 16 bits lose little between them."""
_ROWS = ("last-one", "first-one", "middle-one", "fewer", "pairs", "rows", "columns", "bce", "chosen")
"""They have no maps, so channels_last is not a layout of theirs."""
_OF_ROWS = ("contiguous", "view", "chunk", "transposed")
_OF_MAPS = ("contiguous", "channels_last", "view", "mixed", "chunk", "transposed")
_PIECES = ("residual", "product", "pieces", "pools", "resize", "activations")
"""Networks compute these on half of the channels of another layer's result."""
_LOW = ("contiguous/float16", "contiguous/bfloat16")


def _quick(name: str) -> tuple[str, ...]:
    layouts = ("contiguous",) if name in _ROWS else ("contiguous", "channels_last", "mixed")
    return (*(f"{layout}/strict" for layout in (*layouts, *(["chunk"] if name in _PIECES else []))), *_LOW)


CHECKS = (
    *(
        check_of(
            "elementwise", f"form-{name}", "form", name=name, layouts=_OF_ROWS if name in _ROWS else _OF_MAPS,
            gates={"strict": FORMS, **({p: ELEMENTWISE[p] for p in ("float16", "bfloat16")} if name in LOW else {})},
            quick=_quick(name),
        )
        for name in NAMES
    ),
    check_of("elementwise", "low-sums", gates=LOW_SUMS, quick=tuple(f"contiguous/{precision}" for precision in LOW_SUMS)),
)  # fmt: skip
