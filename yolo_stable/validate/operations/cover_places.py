"""Reductions, orders and indices in all pairs of layouts, dimensions and values: ties, NaN, negative and repeated indices."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Tensors
from .arranging import LAYOUTS, SHAPES, arranged, tiled
from .covering import Row, covered, pairwise

NAN, INF = float("nan"), float("inf")
DRAWN = 4_001
DIMENSIONS: tuple[tuple[int, ...], ...] = ((0,), (1,), (2,), (3,), (0, 1), (1, 2), (2, 3), (0, 2, 3), (0, 1, 2, 3))
REDUCED = pairwise(layout=LAYOUTS, dim=tuple("012345678"), keep=("keep", "drop"), size=tuple(SHAPES))
VALUES = ("distinct", "ties", "equal", "special")
"""Numbers that are all different in a row; of few kinds; all one; with NaN and infinities."""
ORDERED = pairwise(
    values=tuple(f"{kind} {way}" for kind in VALUES for way in ("up", "down")),
    layout=("plain", "turned", "gaps", "offset"),
    dim=("0", "1", "-1"),
    length=("1", "2", "7", "33", "130", "257", "1030"),
)
INDEXED = pairwise(
    table=LAYOUTS,
    index=("plain", "turned", "gaps", "offset"),
    kind=("distinct", "repeated", "negative", "one"),
    form=("first", "second", "both", "mask", "rows-column", "column-rows"),
    size=("odd", "even", "wide", "deep"),
)


def _reduced(i: int, row: Row, x: Tensor) -> Tensors:
    """Return sums, means, norms and extremes over one dimension, several or all."""
    shape, dim, keep = SHAPES[row["size"]], DIMENSIONS[int(row["dim"])], row["keep"] == "keep"
    signed, t = (arranged(tiled(numbers[i:], *shape), row["layout"]) for numbers in (x, x.abs() + 0.25))
    return {
        "sum": t.sum(dim, keepdim=keep),
        "mean": t.mean(dim, keepdim=keep),
        "amax": signed.amax(dim, keepdim=keep),
        "amin": signed.amin(dim, keepdim=keep),
        "norm": torch.linalg.vector_norm(t, 2, dim, keepdim=keep),
        "norm1": torch.linalg.vector_norm(signed, 1, dim, keepdim=keep),
        "largest": torch.linalg.vector_norm(signed, INF, dim, keepdim=keep),
        "max": signed.max(dim[0], keepdim=keep)[0],
        "min": signed.min(dim[0], keepdim=keep)[0],
        "total": t.sum(),
        "average": t.mean(),
        "most": signed.max(),
        "least": signed.min(),
        "length": t.norm(),
        "any": (signed > 0.875).any(dim[0], keepdim=keep),
        "all": (signed > -0.875).all(dim[0], keepdim=keep),
        "count": (signed > 0).sum(dim, keepdim=keep),
        "sums": torch.sum(t, dim, keepdim=keep, dtype=torch.float32),
        "narrow": t[..., :1].prod(3, keepdim=keep),
        "softmax~": signed.softmax(dim[0]),
        "log_softmax~": signed.log_softmax(dim[0]),
        "lse": t.logsumexp(dim, keepdim=keep),
        "extremes": torch.stack(torch.aminmax(signed, dim=dim[0], keepdim=keep)),
    }


def _row_values(x: Tensor, kind: str, count: int) -> Tensor:
    if kind == "distinct":  # small whole numbers, which every floating type holds
        step = torch.arange(count, device=x.device)
        return ((step * 31 + 5) % count).to(x.dtype) - count // 2 if count < 256 else tiled(x, count)
    if kind == "equal":
        return torch.full((count,), 0.5, dtype=x.dtype, device=x.device)
    t = (tiled(x, count) * 4).floor() + 0.0  # of zeros of both signs, which sorts may hold apart, one is left
    if kind == "special":
        t[::5], t[2::7], t[3::11] = NAN, INF, -INF
    return t


def _ordered(i: int, row: Row, x: Tensor) -> Tensors:
    """Return what is promised of sorts and extremes: values, and places where documentation names one."""
    kind, way = row["values"].split()
    count, dim, down = int(row["length"]), int(row["dim"]), way == "down"
    lines = torch.stack([_row_values(x[i + 9 * k :], kind, count) for k in range(3)])
    t = arranged(lines.t().contiguous() if dim == 0 else lines, row["layout"])
    t = t.unsqueeze(0).transpose(0, 1).contiguous() if dim == 1 and row["layout"] == "offset" else t
    if t.ndim == 3:
        dim = 2
    values, at = t.sort(dim, descending=down)
    stable, first = torch.sort(t, stable=True, dim=dim, descending=down)
    k = max(min(7, count // 2), 1)
    top, top_at = t.topk(k, dim, largest=down)
    most, most_at = t.max(dim) if down else t.min(dim)
    parts = {
        "sorted": values,
        "sorted-from": t.gather(dim, at),
        "each-once": at.sort(dim)[0],
        "stable": stable,
        "first": first,
        "argsort": t.argsort(dim=dim, descending=down, stable=True),
        "top": top,
        "top-from": t.gather(dim, top_at),
        "once": (top_at.sort(dim)[0].diff(dim=dim) != 0).sum(),
        "extreme": most,
        "extreme-from": t.gather(dim, most_at.unsqueeze(dim)),
        "whole": t.max() if down else t.min(),
        "flat": t.reshape(-1).sort(descending=down)[0],
        "flat-stable": torch.sort(t.reshape(-1), stable=True, descending=down)[1],
        "cummax": t.cummax(dim)[0] if down else t.cummin(dim)[0],
    }
    line = lines[0].contiguous()
    parts |= {
        "line": line.sort(descending=down)[0],
        "line-stable": torch.sort(line, stable=True, descending=down)[1],
        "line-top": line.topk(k, largest=down)[0],
    }
    if kind != "special":  # which of several NaN is the extreme is said nowhere
        parts |= {
            "place": most_at,
            "argmax": t.argmax(dim),
            "argmin": t.argmin(dim),
            "place-of-all": t.argmax(),
        }
        parts |= {"unique": t.unique(), "median": t.median(dim)[0], "kth": t.kthvalue(k, dim)[0]}
        parts["counts"] = t.unique(return_counts=True)[1]
    return parts


def _indices(order: Tensor, kind: str, count: int, below: int) -> Tensor:
    if kind == "distinct":
        return (
            torch.arange(count, device=order.device) * 5 % below
            if count <= below and below % 5
            else order[:count] % below
        )
    if kind == "one":
        return torch.full((count,), below - 1, device=order.device)
    at = order[:count] % max(below // (2 if kind == "repeated" else 1), 1)
    return at - below if kind == "negative" else at


def _indexed(i: int, row: Row, x: Tensor, order: Tensor) -> Tensors:
    """Return what is read and written by indices; where two are written to one place, only their sum is looked at."""
    whole = (x * 8).round()  # sums of few are exact in every type
    t = arranged(tiled(whole[i:], *SHAPES[row["size"]]), row["table"])
    n, c, h, w = t.shape
    at = {
        dim: arranged(_indices(order[i + dim :], row["kind"], 9, size), row["index"])
        for dim, size in enumerate((n, c, h, w))
    }
    key: Any = {
        "first": at[0],
        "second": (slice(None), at[1]),
        "both": (at[0], at[1]),
        "mask": t > 2,
        "rows-column": (at[0][:, None], at[1][:4]),
        "column-rows": (slice(None), slice(None), at[2][:5], at[3][:5]),
    }[row["form"]]
    read = t[key]
    base = (
        t.clone(memory_format=torch.contiguous_format)
        if row["table"] == "expanded"
        else arranged(t.contiguous().clone(), row["table"])
    )
    once = base.clone()
    once[key] = 3.0
    parts: Tensors = {"read": read, "written": once}
    twice = base.clone()
    twice[key] += 0.0
    parts["unchanged"] = twice
    if row["form"] == "mask":
        filled = base.clone()
        filled[key] = read * 2
        parts["filled"] = filled
    else:
        keys = tuple(k if torch.is_tensor(k) else None for k in (key if isinstance(key, tuple) else (key,)))
        parts["added"] = torch.ops.aten.index_put(base, keys, torch.ones_like(read), accumulate=True)
        parts["added-one"] = torch.ops.aten.index_put(base, keys, read.new_ones(()), accumulate=True)
    positive = {dim: a % size for (dim, a), size in zip(at.items(), (n, c, h, w), strict=True)}
    for dim, a in positive.items():
        wide = a.view(*(-1 if k == dim else 1 for k in range(4))).expand(
            *(9 if k == dim else s for k, s in enumerate(t.shape))
        )
        parts[f"gather{dim}"] = t.gather(dim, wide)
        parts[f"select{dim}"] = t.index_select(dim, a)
        parts[f"scatter{dim}"] = base.scatter_add(dim, wide, torch.ones_like(wide, dtype=t.dtype))
        parts[f"add{dim}"] = base.index_add(dim, a, t.new_ones(*(9 if k == dim else s for k, s in enumerate(t.shape))))
        parts[f"put{dim}"] = base.scatter(dim, wide, 5.0)
        parts[f"fill{dim}"] = base.index_fill(dim, a, -1.0)
        parts[f"take{dim}"] = t.take_along_dim(wide, dim)
    parts["embedding"] = F.embedding(positive[0], t.flatten(1))
    parts["hot"] = F.one_hot(positive[1], c)
    return parts


def _drawn(draw: HashedDraw) -> Tensors:
    return {"x": draw("x", DRAWN)}


RECIPES: dict[str, Builder] = {
    "cover_reductions": covered(_drawn, (REDUCED, _reduced), scale="element"),
    "cover_orders": covered(_drawn, (ORDERED, _ordered), scale="none"),
    "cover_indices": covered(
        lambda draw: {**_drawn(draw), "order": draw.permutation("order", DRAWN)}, (INDEXED, _indexed), scale="none"
    ),
}
