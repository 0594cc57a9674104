"""Operations at the sizes of real training, of which the ends are compared."""

from __future__ import annotations

from collections.abc import Mapping

from ..check import Check
from ..gate import Gate
from .gates import EXACT, LARGE

_ONCE = ("contiguous/strict", "contiguous/exact")


def _check(family: str, table: str, gates: Mapping[str, Gate], note: str = "") -> Check:
    return Check(
        id=f"{family}/large-{table}", family=family, operation="large", params={"table": table}, gates=gates, quick=_ONCE,
        note=note,
    )  # fmt: skip


CHECKS = (
    _check("exact", "row-places", EXACT, "anchors of a whole batch"),
    _check("elementwise", "pointwise", LARGE),
    _check("elementwise", "pointwise-in-place", LARGE),
    _check("elementwise", "pointwise-backward", LARGE),
    _check("elementwise", "rows", LARGE, "the bins of all anchors of a batch"),
    _check("elementwise", "maps", LARGE),
    _check("elementwise", "convolutions", LARGE, "more than 2^22 results, 2^19 weights, 2^16 places"),
)
