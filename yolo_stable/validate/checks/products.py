"""Matrix products in the shapes and forms in which training calls them."""

from __future__ import annotations

from ..check import Check
from .gates import ACCUMULATED, LINEAR, LINEAR_SINGLE

PRODUCTS = (
    "addmm-scaled", "addmm-bias", "baddbmm-scaled", "self", "self-batch", "self-turned", "vector", "vector-16", "bins",
    "batch-130", "batch-nt", "batch-tn", "wide", "wide-flat", "rows-4801", "rows-nt", "keys-400", "keys-1000", "long-2200",
    "long-70001", "long-tn", "outer", "dot", "columns-1", "one-term", "einsum", "broadcast",
)  # fmt: skip
_SINGLE = ("vector", "vector-16", "bins", "outer", "dot", "columns-1", "one-term")
"""Whose results or gradients are products of two numbers, not sums of many."""
POSITIVE = ("keys-400", "keys-1000", "long-2200", "long-tn", "rows-nt", "batch-nt", "self", "vector")
"""Whose sums are long enough for an accumulator in 16 bits to stall."""
_QUICK = ("contiguous/strict", "contiguous/float16", "contiguous/bfloat16", "transposed/strict")
_FEW = ("contiguous/strict", "contiguous/bfloat16")
"""Other types and layouts of products are covered by whole numbers, exactly."""

CHECKS = (
    *(
        Check(
            id=f"linear/product-{name}", family="linear", operation="product", params={"name": name},
            layouts=("contiguous", "transposed", "view"), gates=LINEAR_SINGLE if name in _SINGLE else LINEAR, quick=_FEW,
        )
        for name in PRODUCTS
    ),
    *(
        Check(
            id=f"linear/positive-{name}", family="linear", operation="positive_product", params={"name": name}, gates=ACCUMULATED,
            quick=_QUICK,
        )
        for name in POSITIVE
    ),
)  # fmt: skip
