"""Matrix products in the shapes and forms in which training calls them."""

from __future__ import annotations

from ..check import check_of
from .gates import ACCUMULATED, LINEAR, LINEAR_SINGLE

PRODUCTS = (
    "addmm-scaled", "addmm-bias", "baddbmm-scaled", "self", "self-batch", "self-turned", "vector", "vector-16", "bins",
    "batch-130", "batch-nt", "batch-tn", "wide", "wide-flat", "rows-4801", "rows-nt", "keys-400", "keys-1000", "long-2200",
    "long-70001", "long-tn", "outer", "dot", "columns-1", "one-term", "einsum", "broadcast",
)  # fmt: skip
_SINGLE = ("vector", "vector-16", "bins", "outer", "dot", "columns-1", "one-term")
"""Their results or gradients are products of two numbers, not sums of many."""
POSITIVE = ("keys-400", "keys-1000", "long-2200", "long-tn", "rows-nt", "batch-nt", "self", "vector")
"""Their sums are long enough to stall an accumulator in 16 bits."""
_QUICK = ("contiguous/strict", "contiguous/float16", "contiguous/bfloat16", "transposed/strict")
_FEW = ("contiguous/strict", "contiguous/bfloat16")
"""Whole numbers cover other types and layouts of products exactly."""

CHECKS = (
    *(
        check_of(
            "linear", f"product-{name}", "product", name=name, layouts=("contiguous", "transposed", "view"),
            gates=LINEAR_SINGLE if name in _SINGLE else LINEAR, quick=_FEW,
        )
        for name in PRODUCTS
    ),
    *(
        check_of("linear", f"positive-{name}", "positive_product", name=name, gates=ACCUMULATED, quick=_QUICK)
        for name in POSITIVE
    ),
)  # fmt: skip
