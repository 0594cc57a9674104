"""Copies, casts and concatenations in all pairs of types, layouts, broadcasts, sizes and dimensions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Tensors
from .arranging import LAYOUTS, SHAPES, arranged, shapes, tiled
from .covering import Row, covered, pairwise

TYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool")}
DRAWN = 4_001
_SPREADS = ("none", "b-first", "b-middle", "b-last", "fewer", "zero-dim")
COPIES = pairwise(
    source=tuple(TYPES), target=tuple(TYPES), a=LAYOUTS, b=LAYOUTS, broadcast=_SPREADS, size=tuple(SHAPES)
)
MOVES = pairwise(type=tuple(TYPES), layout=LAYOUTS, size=("odd", "even", "wide", "deep"))
JOINS = pairwise(
    type=tuple(TYPES),
    a=LAYOUTS,
    b=LAYOUTS,
    dim=("0", "1", "2", "3", "-1"),
    pieces=("2", "3", "5", "self"),
    size=("odd", "even", "wide", "deep"),
    lengths=("same", "other"),
)
LEVELS = ((6_400, 1_600, 400), (4_097, 1), (33, 1_030, 7, 2_048))
"""Places of the levels of a pyramid, and others that end beyond a block."""


def _numbers(x: Tensor, kind: str) -> Tensor:
    """Return numbers that a type is given: of both signs for floating ones, whole ones that it holds for others."""
    if kind == "bool":
        return x > 0
    if kind == "uint8":
        return (x.abs() * 4).floor().clamp(0, 255).to(torch.uint8)
    if kind in ("int64", "int32"):
        return (x * 4).floor().to(TYPES[kind])
    return x.to(TYPES[kind])


def _copied(i: int, row: Row, x: Tensor) -> Tensors:
    """Return copies from one type and layout into another, and casts that make a new tensor."""
    first, second = shapes(SHAPES[row["size"]], row["broadcast"])
    numbers = _numbers(x, row["source"])
    if row["target"] in ("uint8", "bool") and row["source"] != "bool":
        numbers = numbers.abs() if numbers.is_floating_point() or numbers.dtype != torch.uint8 else numbers
    source = arranged(tiled(numbers[i:], *second), row["b"])
    kind = TYPES[row["target"]]
    empty = torch.zeros(first, dtype=kind, device=x.device)
    target = arranged(empty, row["a"] if row["a"] != "expanded" else "plain")
    name = f"{row['source']}-{row['target']}"
    found = {
        f"copy-{name}": target.copy_(source),
        f"cast-{name}": source.to(kind),
        f"order-{name}": source.to(kind, memory_format=torch.contiguous_format, copy=True),
    }
    if row["broadcast"] == "none":
        part = arranged(torch.zeros(first, dtype=kind, device=x.device), "gaps")
        part[..., 1:, :] = source[..., 1:, :]
        found[f"part-{name}"] = part
    return found


def _moved(i: int, row: Row, x: Tensor) -> Tensors:
    """Return what moves numbers about."""
    numbers = _numbers(x, row["type"])
    t = arranged(tiled(numbers[i:], *SHAPES[row["size"]]), row["layout"])
    parts: Tensors = {
        "clone": t.clone(),
        "plain": t.clone(memory_format=torch.contiguous_format),
        "contiguous": t.contiguous(),
        "last": t.contiguous(memory_format=torch.channels_last),
        "turn": t.transpose(2, 3).contiguous(),
        "permute": t.permute(0, 2, 3, 1).contiguous(),
        "swap": t.transpose(1, 2).contiguous(),
        "flat": t.flatten(1),
        "reshape": t.transpose(0, 1).reshape(t.shape[1], -1),
        "flip": t.flip(2, 3),
        "flip-first": t.flip(0),
        "roll": t.roll((1, -2), (1, 3)),
        "repeat": t.repeat(2, 1, 1, 2),
        "expand": t[:, :1].expand_as(t).contiguous(),
        "pad": F.pad(t, (1, 0, 2, 1), value=1),
        "each": t.repeat_interleave(2, 1),
        "slice": t[:, 1:, ::2, 1:].clone(),
        "select": t[:, -1].clone(),
        "chunk": t.chunk(2, 1)[-1].contiguous(),
        "split": t.split(2, 2)[-1].clone(),
        "unbind": t.unbind(3)[-1].clone(),
        "narrow": t.narrow(3, 1, t.shape[3] - 1).contiguous(),
        "stack": torch.stack([t, t], -1),
        "where": torch.where(t > 0, t, t[:1]),
        "tile": t.unsqueeze(2).repeat(1, 1, 3, 1, 1),
        "masked": t.masked_fill(t[:1] > 1, 1),
        "triangle": t.triu(1),
        "lower": t.tril(-1),
        "like": torch.zeros_like(t).copy_(t),
        "select-rows": t.index_select(2, torch.tensor([t.shape[2] - 1, 0, 0], device=x.device)),
    }
    filled = t.clone()
    filled[:, :, 1:, 1:] = 1
    zeroed = t.clone()
    zeroed[..., -1].zero_()
    put = t.clone()
    put[1:] = t[:1]
    swapped = t.clone()
    swapped[..., :2] = t[..., -2:]
    return parts | {"filled": filled, "zeroed": zeroed, "put": put, "swapped": swapped}


def _joined(i: int, row: Row, x: Tensor) -> Tensors:
    """Return concatenations of two and more pieces, equal and unequal, in equal and other layouts."""
    shape, dim = SHAPES[row["size"]], int(row["dim"])
    numbers = _numbers(x, row["type"])
    other = [max(n // 2, 1) if k == dim % 4 and row["lengths"] == "other" else n for k, n in enumerate(shape)]
    a = arranged(tiled(numbers[i:], *shape), row["a"])
    b = arranged(tiled(numbers[2 * i + 5 :], *other), row["b"])
    pieces = {"2": [a, b], "3": [b, a, b], "5": [a, b, b, a, b], "self": [a, a]}[row["pieces"]]
    found = {"cat": torch.cat(pieces, dim)}
    if row["lengths"] == "same":
        found["stack"] = torch.stack(pieces, dim)
    return found


def _levels(i: int, row: Row, x: Tensor) -> Tensors:
    numbers = _numbers(x, row["type"])
    rows = [tiled(numbers[j:], 2, 5, n) for j, n in enumerate(LEVELS[int(row["levels"])])]
    return {
        "levels": torch.cat(rows, -1),
        "levels-turned": torch.cat([r.transpose(1, 2) for r in rows], 1),
        "levels-flat": torch.cat([r[0, 0] for r in rows]),
    }


def _numbers_of_all_sizes(draw: HashedDraw) -> Tensors:
    """Return numbers of both signs, from 2^-12 to 64 and some far below."""
    x = torch.exp2(draw("size", DRAWN, low=-12, high=6)) * draw("sign", DRAWN).sign()
    tiny = torch.exp2(draw("tiny", 200, low=-80, high=-30))
    x[:1_000:5] = tiny  # a copy flushes nothing that the type holds as a normal number
    return {"x": x}


def _exact(*parts: Any) -> Builder:
    return covered(_numbers_of_all_sizes, *parts, scale="none", same_type=True)


_PYRAMIDS = [
    {"levels": str(k), "type": kind} for k in range(len(LEVELS)) for kind in ("float32", "float16", "bfloat16")
]
RECIPES: dict[str, Builder] = {
    "cover_copies": _exact((COPIES, _copied)),
    "cover_moves": _exact((MOVES, _moved)),
    "cover_joins": _exact((JOINS, _joined), (_PYRAMIDS, _levels)),
}
