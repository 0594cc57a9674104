"""Matrix products in the shapes and forms in which training calls them: long, wide, many, scaled, of a matrix with itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe

Product = tuple[Callable[..., Tensor], tuple[tuple[int, ...], ...]]

PRODUCTS: dict[str, Product] = {
    "addmm-scaled": (lambda a, b, c: torch.addmm(c, a, b, beta=0.5, alpha=0.3), ((37, 41), (41, 29), (37, 29))),
    "addmm-bias": (lambda a, b, c: torch.addmm(c, a, b), ((31, 41), (41, 31), (31,))),
    "baddbmm-scaled": (
        lambda a, b, c: torch.baddbmm(c, a, b, beta=0.5, alpha=0.3),
        ((5, 13, 21), (5, 21, 11), (5, 13, 11)),
    ),
    "self": (lambda a: a @ a.t(), ((45, 83),)),
    "self-batch": (lambda a: a @ a.transpose(1, 2), ((3, 21, 43),)),
    "self-turned": (lambda a: a.t() @ a, ((83, 45),)),
    "vector": (torch.mv, ((333, 77), (77,))),
    "vector-16": (torch.mv, ((1_001, 16), (16,))),
    "bins": (torch.matmul, ((5, 13, 4, 16), (16,))),
    "batch-130": (torch.bmm, ((130, 9, 21), (130, 21, 7))),
    "batch-nt": (lambda a, b: a @ b.transpose(1, 2), ((70, 9, 21), (70, 7, 21))),
    "batch-tn": (lambda a, b: a.transpose(1, 2) @ b, ((20, 21, 9), (20, 21, 7))),
    "wide": (torch.bmm, ((1, 5, 8), (1, 8, 16_901))),
    "wide-flat": (torch.mm, ((5, 8), (8, 16_901))),
    "rows-4801": (torch.mm, ((4_801, 12), (12, 9))),
    "rows-nt": (lambda a, b: a @ b.t(), ((301, 21), (7, 21))),
    "keys-400": (torch.bmm, ((2, 23, 400), (2, 400, 17))),
    "keys-1000": (torch.bmm, ((2, 11, 1_000), (2, 1_000, 9))),
    "long-2200": (torch.mm, ((7, 2_200), (2_200, 9))),
    "long-70001": (torch.mm, ((3, 70_001), (70_001, 2))),
    "long-tn": (lambda a, b: a.t() @ b, ((4_803, 9), (4_803, 7))),
    "outer": (torch.outer, ((77,), (53,))),
    "dot": (torch.dot, ((4_001,), (4_001,))),
    "columns-1": (torch.mm, ((77, 33), (33, 1))),
    "one-term": (torch.mm, ((77, 1), (1, 33))),
    "einsum": (lambda a, b: torch.einsum("bchw,bkc->bkhw", a, b), ((2, 33, 9, 7), (2, 5, 33))),
    "broadcast": (torch.matmul, ((3, 1, 9, 21), (2, 21, 7))),
}
"""By name: the product, and the shapes of what it takes; all gradients are compared as well."""


def product(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a product with all its gradients."""
    compute, shapes = PRODUCTS[params["name"]]
    inputs = {f"x{i}": draw(f"x{i}", *shape, low=0.1 if len(shape) == 1 else -1.0) for i, shape in enumerate(shapes)}
    inputs["x0"] = inputs["x0"] / math.sqrt(shapes[0][-1])
    return Recipe(inputs=inputs, compute=compute, gradients=tuple(inputs), scale="linear")


def positive_product(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a product of positive numbers, whose partial sums grow with every term: an accumulator of few bits stalls."""
    compute, shapes = PRODUCTS[params["name"]]
    inputs = {f"x{i}": draw(f"x{i}", *shape, low=0.2) for i, shape in enumerate(shapes)}
    inputs["x0"] = inputs["x0"] / shapes[0][-1]
    return Recipe(inputs=inputs, compute=compute, scale="linear")


RECIPES: dict[str, Builder] = {
    "product": product,
    "positive_product": positive_product,
}
