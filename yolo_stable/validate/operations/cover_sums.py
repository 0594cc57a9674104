"""Products and sums of whole numbers in all pairs of sizes, layouts and forms: what adds up in float32 rounds nothing.

All results have few bits, so that float16 and bfloat16 hold them, and so does every sum that is kept in float32, in whatever
order. The partial sums of half of the terms have more bits than 16-bit types hold: what keeps them in one is wrong.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Tensors, value_and_gradients
from .arranging import arranged, tiled
from .covering import Row, covered, pairwise

DRAWN = 8_009
_LAYOUTS = ("plain", "turned", "gaps", "offset")
PRODUCTS = pairwise(
    rows=("1", "7", "33", "64", "130"),
    terms=("1", "8", "31", "64", "129"),
    columns=("1", "5", "16", "65"),
    a=(*_LAYOUTS, "expanded"),
    b=(*_LAYOUTS, "expanded"),
    bias=("vector", "matrix", "one"),
)
LONG = pairwise(
    rows=("3", "18"),
    terms=("256", "400", "1024", "2201"),
    columns=("7", "32"),
    a=_LAYOUTS,
    b=_LAYOUTS,
    order=("halves", "mixed"),
)
WIDE = pairwise(rows=("1", "5"), terms=("9", "16"), columns=("1000", "1003", "4101"), b=_LAYOUTS)
SYMMETRIC = [{"rows": rows, "terms": terms} for rows, terms in (("128", "9"), ("129", "64"), ("200", "17"))]
GROUPS = pairwise(
    batch=("1", "3", "17", "70"),
    rows=("1", "9"),
    terms=("1", "21"),
    columns=("1", "7"),
    a=(*_LAYOUTS, "expanded"),
    b=(*_LAYOUTS, "expanded"),
)
MAPS = pairwise(
    layout=("plain", "channels_last", "turned", "gaps", "offset"),
    channels=("1", "3", "64", "65"),
    side=("2", "6", "8", "20"),
)


def _sizes(row: Row, *names: str) -> tuple[int, ...]:
    return tuple(int(row[name]) for name in names)


def _multiplied(i: int, row: Row, x: Tensor) -> Tensors:
    m, k, n = _sizes(row, "rows", "terms", "columns")
    a = arranged(tiled(x[i:], m, k), row["a"])
    b = arranged(tiled(x[3 * i + 5 :], k, n), row["b"])
    c = tiled(x[2 * i + 9 :], *{"vector": (n,), "matrix": (m, n), "one": (1, n)}[row["bias"]])
    turned = b.t().contiguous()
    return {
        "mm": torch.mm(a, b),
        "addmm": torch.addmm(c, a, b),
        "scaled": torch.addmm(c, a, b, beta=2, alpha=0.5),
        "linear": F.linear(a, turned),
        "bias": F.linear(a, turned, c if c.ndim == 1 else None),
        "mv": torch.mv(a, b[:, 0]),
        "dot": torch.dot(a[0], b[:, 0]),
        "turned": a @ turned.t(),
        "batch": torch.matmul(a[None], b.expand(2, k, n)),
        "rows": F.linear(a[None], turned, c if c.ndim == 1 else None),
        "einsum": torch.einsum("mk,kn->nm", a, b),
        "out": torch.mm(a, b, out=x.new_full((m, n), 7.0)),
        "beta": torch.addmm(x.new_full((m, n), float("nan")), a, b, beta=0),
    }


def _wide(i: int, row: Row, x: Tensor) -> Tensors:
    m, k, n = _sizes(row, "rows", "terms", "columns")
    a, c = tiled(x, m, k), tiled(x[9:], n)
    b = arranged(tiled(x[7:], k, n), row["b"])
    return {
        "wide": torch.mm(a, b),
        "wide-bias": torch.addmm(c, a, b),
        "wide-linear": F.linear(a, b.t(), c),
        "tall": torch.mm(b.t(), a.t()),
    }


def _squared(i: int, row: Row, x: Tensor) -> Tensors:
    m, k = _sizes(row, "rows", "terms")
    a = tiled(x, m, k)
    return {"self": a @ a.t(), "self-scaled": torch.addmm(tiled(x[5:], m, m), a, a.t(), beta=2, alpha=1)}


def _batched(i: int, row: Row, x: Tensor) -> Tensors:
    count, m, k, n = _sizes(row, "batch", "rows", "terms", "columns")
    a = arranged(tiled(x[i:], count, m, k), row["a"])
    b = arranged(tiled(x[3 * i + 5 :], count, k, n), row["b"])
    c = tiled(x[2 * i + 9 :], count, m, n)
    return {
        "bmm": torch.bmm(a, b),
        "baddbmm": torch.baddbmm(c, a, b),
        "scaled": torch.baddbmm(c, a, b, beta=2, alpha=0.5),
        "spread": torch.baddbmm(c[:1, :1], a, b),
        "matmul": torch.matmul(a[:, None], b[:, None]),
        "one": a @ b[0],
        "first": a[0] @ b,
        "heads": torch.matmul(a.expand(2, *a.shape), b),
        "turned": torch.bmm(b.mT, a.mT),
        "vector": a @ b[0, :, 0],
    }


def _accumulated(i: int, row: Row, x: Tensor, order: Tensor) -> Tensors:
    """Return long products whose partial sums are large and whose results are small."""
    large = x * 5 + 6 * (x > 0) - 2  # from -12 to 14
    m, k, n = _sizes(row, "rows", "terms", "columns")
    left, right = tiled(large[i:], m, k // 2), tiled(large[2 * i + 5 :].abs(), k // 2, n)
    slight = (tiled(x[3 * i :], k // 2, n) > 1).to(x.dtype) * (torch.arange(k // 2, device=x.device) % 32 == 3)[:, None]
    a = torch.cat([left.abs(), left.abs()] + [left[:, :1] * 0] * (k % 2), 1)
    b = torch.cat([right, slight - right] + [right[:1]] * (k % 2))
    if row["order"] == "mixed":
        place = order[order < k]
        a, b = a[:, place], b[place]
    a, b = arranged(a, row["a"]), arranged(b, row["b"])
    bias = tiled(x, n)
    return {
        "mm": torch.mm(a, b),
        "addmm": torch.addmm(bias, a, b),
        "linear": F.linear(a, b.t().contiguous(), bias),
        "bmm": torch.bmm(a.expand(3, m, k), b.expand(3, k, n)),
        "turned": torch.mm(b.t(), a.t()),
        "baddbmm": torch.baddbmm(bias.expand(2, m, n), a.expand(2, m, k), b.expand(2, k, n)),
        "mv": torch.mv(a, b[:, 0]),
    }


def _pooled(i: int, row: Row, block: Tensor) -> Tensors:
    """Return sums over maps, and those that go back from a resize."""
    channels, side = int(row["channels"]), int(row["side"])
    blocks = tiled(block[i:].flatten(), 2, channels, side // 2, side // 2, 2, 2)
    maps = blocks.transpose(3, 4).reshape(2, channels, side, side)
    t = arranged(maps, row["layout"])
    parts: Tensors = {"avg": F.avg_pool2d(t, 2) * 4}
    for name, size in (("back", side // 2), ("back-one", 1)):
        if side // size == 2 or side == 2:
            resize = partial(F.interpolate, scale_factor=side // size, mode="nearest")
            empty = arranged(t.new_zeros(2, channels, size, size), row["layout"])
            parts[name] = value_and_gradients(resize, empty, upstream=lambda _: t)[1]
    if side in (2, 8):
        parts |= {
            "mean": F.adaptive_avg_pool2d(t, 1) * side,
            "kernel": torch.ops.aten._adaptive_avg_pool2d(t, [1, 1]) * side,
            "pooled": t.mean((2, 3)) * side,
            "sum": t.sum((2, 3)) / side,
            "rows": t.flatten(2).sum(2) / side,
        }
    return parts


def _signs(draw: HashedDraw) -> Tensors:
    """Return whole numbers between -2 and 2, of which sums of a hundred products stay below 256."""
    return {"x": (draw.integers("x", DRAWN, below=5) - 2).double()}


def _blocks(draw: HashedDraw) -> Tensors:
    """Return blocks of four numbers, whose partial sums have nine bits."""
    a, b = draw.integers("a", 2_000, below=120) + 130, draw.integers("b", 2_000, below=120) + 130
    c, d = draw.integers("c", 2_000, below=3), draw.integers("d", 2_000, below=3)
    blocks = torch.stack([a, b, c - a, d - b], 1)
    turned = draw("turn", 2_000) > 0
    blocks[turned] = blocks[turned][:, [0, 2, 1, 3]]
    return {"block": blocks.double()}


RECIPES: dict[str, Builder] = {
    "cover_products": covered(_signs, (PRODUCTS, _multiplied), (WIDE, _wide), (SYMMETRIC, _squared), scale="none"),
    "cover_batches": covered(_signs, (GROUPS, _batched), scale="none"),
    "cover_accumulated": covered(
        lambda draw: {**_signs(draw), "order": draw.permutation("order", 2_201)}, (LONG, _accumulated), scale="none"
    ),
    "cover_pooled": covered(_blocks, (MAPS, _pooled), scale="none"),
}
