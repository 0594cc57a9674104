"""Covering arrays: each operation of a training in all pairs of layouts, forms, sizes, types and values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..check import Check, check_of
from ..gate import Gate
from .gates import COVER, COVER_GRADIENTS, COVER_NORMS, EXACT, EXACT_LOW

_LOW = tuple(f"contiguous/{precision}" for precision in ("strict", "exact", "float16", "bfloat16"))
_TWO = ("contiguous/strict", "contiguous/bfloat16")
"""With small gradients, float32 is asked for all that it is asked for with ordinary ones."""
_NOT_FLOAT16 = ("strict", "bfloat16")
"""Numbers that float16 holds in few bits, or not at all."""


def _check(
    family: str,
    name: str,
    gates: Mapping[str, Gate],
    operation: str = "",
    quick: tuple[str, ...] = _LOW,
    **params: Any,
) -> Check:
    named = operation or f"cover_{name.replace('-', '_')}"
    return check_of(family, f"cover-{name}", named, gates=gates, quick=quick, **params)


def _some(gates: Mapping[str, Gate], *precisions: str) -> dict[str, Gate]:
    return {precision: gates[precision] for precision in precisions}


CHECKS = (
    _check("exact", "whole", EXACT),
    _check("exact", "whole-reductions", EXACT),
    _check("exact", "counters", EXACT),
    _check("exact", "copies", EXACT),
    _check("exact", "moves", EXACT),
    _check("exact", "joins", EXACT),
    _check("exact", "orders", EXACT_LOW),
    _check("exact", "indices", EXACT_LOW),
    _check("exact", "pooled", EXACT_LOW),
    _check("exact", "chance", EXACT),
    _check("linear", "products", EXACT_LOW),
    _check("linear", "batches", EXACT_LOW),
    _check("linear", "accumulated", EXACT_LOW),
    _check("elementwise", "unary", COVER, quick=_TWO),
    _check("elementwise", "binary", COVER, quick=_TWO[:1]),
    _check("elementwise", "small", _some(COVER, *_NOT_FLOAT16)),
    _check("elementwise", "reductions", COVER, quick=_TWO),
    _check("elementwise", "maps", COVER_GRADIENTS, quick=()),
    _check("elementwise", "rows", _some(COVER_GRADIENTS, "strict"), quick=()),
    _check(
        "elementwise", "maps-small", _some(COVER_GRADIENTS, *_NOT_FLOAT16), "cover_maps", quick=_TWO[:1], small=True
    ),
    _check("elementwise", "rows-small", _some(COVER_GRADIENTS, "strict"), "cover_rows", small=True),
    _check("elementwise", "losses", _some(COVER_GRADIENTS, "strict")),
    _check("norm", "norms", COVER_NORMS),
)
