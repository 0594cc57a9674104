"""Copies, casts and concatenations in all pairs of types, layouts, broadcasts, sizes and dimensions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..covering import pairwise
from ..hashed import Draw
from ..recipe import Recipe, Tensors
from .arranging import LAYOUTS, SHAPES, arranged, shapes, tiled

TYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "uint8": torch.uint8,
    "bool": torch.bool,
}
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


def copies(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return copies from each type and layout into each other, and casts that make a new tensor."""

    def compute(x: Tensor) -> Tensors:
        found: Tensors = {}
        for i, row in enumerate(COPIES):
            first, second = shapes(SHAPES[row["size"]], row["broadcast"])
            numbers = _numbers(x, row["source"])
            if row["target"] in ("uint8", "bool") and row["source"] != "bool":
                numbers = numbers.abs() if numbers.is_floating_point() or numbers.dtype != torch.uint8 else numbers
            source = arranged(tiled(numbers[i:], *second).contiguous(), row["b"])
            kind = TYPES[row["target"]]
            empty = torch.zeros(first, dtype=kind, device=x.device)
            target = arranged(empty, row["a"] if row["a"] != "expanded" else "plain")
            label = "-".join(row.values())
            name = f"{row['source']}-{row['target']}"
            found[f"copy-{name}|{label}"] = target.copy_(source)
            found[f"cast-{name}|{label}"] = source.to(kind)
            found[f"order-{name}|{label}"] = source.to(kind, memory_format=torch.contiguous_format, copy=True)
            if row["broadcast"] == "none":
                part = arranged(torch.zeros(first, dtype=kind, device=x.device), "gaps")
                part[..., 1:, :] = source[..., 1:, :]
                found[f"part-{name}|{label}"] = part
        return found

    return _exact(draw, compute)


def moves(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return what moves numbers about, for each type, layout and size."""

    def compute(x: Tensor) -> Tensors:
        found: Tensors = {}
        for i, row in enumerate(MOVES):
            numbers = _numbers(x, row["type"])
            t = arranged(tiled(numbers[i:], *SHAPES[row["size"]]).contiguous(), row["layout"])
            label = "-".join(row.values())
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
            parts |= {"filled": filled, "zeroed": zeroed, "put": put, "swapped": swapped}
            found |= {f"{name}|{label}": value for name, value in parts.items()}
        return found

    return _exact(draw, compute)


def joins(params: Mapping[str, Any], draw: Draw) -> Recipe:
    """Return concatenations in each dimension, of two and more pieces, equal and unequal, in equal and other layouts."""

    def compute(x: Tensor) -> Tensors:
        found: Tensors = {}
        for i, row in enumerate(JOINS):
            shape, dim = SHAPES[row["size"]], int(row["dim"])
            numbers = _numbers(x, row["type"])
            other = [max(n // 2, 1) if k == dim % 4 and row["lengths"] == "other" else n for k, n in enumerate(shape)]
            a = arranged(tiled(numbers[i:], *shape).contiguous(), row["a"])
            b = arranged(tiled(numbers[2 * i + 5 :], *other).contiguous(), row["b"])
            pieces = {"2": [a, b], "3": [b, a, b], "5": [a, b, b, a, b], "self": [a, a]}[row["pieces"]]
            label = "-".join(row.values())
            found[f"cat|{label}"] = torch.cat(pieces, dim)
            if row["lengths"] == "same":
                found[f"stack|{label}"] = torch.stack(pieces, dim)
        for k, lengths in enumerate(LEVELS):
            for kind in ("float32", "float16", "bfloat16"):
                numbers = _numbers(x, kind)
                rows = [tiled(numbers[j:], 2, 5, n) for j, n in enumerate(lengths)]
                found[f"levels|{k}-{kind}"] = torch.cat(rows, -1)
                found[f"levels-turned|{k}-{kind}"] = torch.cat([r.transpose(1, 2) for r in rows], 1)
                found[f"levels-flat|{k}-{kind}"] = torch.cat([r[0, 0] for r in rows])
        return found

    return _exact(draw, compute)


def _exact(draw: Draw, compute: Callable[..., Tensors]) -> Recipe:
    """Return a recipe on numbers of both signs and of sizes from 2^-12 to 64, whose reference has the same types."""
    x = torch.exp2(draw("size", DRAWN, low=-12, high=6)) * draw("sign", DRAWN).sign()
    tiny = torch.exp2(draw("tiny", 200, low=-80, high=-30))
    x[:1_000:5] = tiny  # a copy flushes nothing that the type holds as a normal number
    return Recipe(inputs={"x": x}, compute=compute, scale="none", same_type=True, packed=True)


RECIPES: dict[str, Callable[[Mapping[str, Any], Draw], Recipe]] = {
    "cover_copies": copies,
    "cover_moves": moves,
    "cover_joins": joins,
}
