"""Operations at the sizes of real training; the ends of their results are compared."""

from __future__ import annotations

from collections.abc import Mapping

from ..check import Check, check_of
from ..gate import Gate
from .gates import EXACT, LARGE


def _check(family: str, table: str, gates: Mapping[str, Gate], note: str = "") -> Check:
    quick = ("contiguous/strict", "contiguous/exact")
    return check_of(family, f"large-{table}", "large", gates=gates, quick=quick, note=note, table=table)


CHECKS = (
    _check("exact", "row-places", EXACT, "anchors of a whole batch"),
    _check("elementwise", "pointwise", LARGE),
    _check("elementwise", "pointwise-in-place", LARGE),
    _check("elementwise", "pointwise-backward", LARGE),
    _check("elementwise", "rows", LARGE, "the bins of all anchors of a batch"),
    _check("elementwise", "maps", LARGE),
    _check("elementwise", "convolutions", LARGE, "more than 2^22 results, 2^19 weights, 2^16 places"),
)
