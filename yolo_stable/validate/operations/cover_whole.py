"""Whole numbers and truth values in all pairs of types, layouts, broadcasts, forms and sizes; counters, and reads by the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Tensors
from .arranging import BROADCASTS, LAYOUTS, SHAPES, arranged, shapes, tiled
from .cover_pointwise import call_in_form
from .covering import Row, covered, pairwise

TYPES = {name: getattr(torch, name) for name in ("int64", "int32", "int16", "uint8", "bool")}
_WITHIN = {"int64": 1 << 34, "int32": 1 << 26, "int16": 180, "uint8": 15, "bool": 2}
"""Bound of the numbers' size: no sum or small product wraps around."""
FLOATS = ("float32", "float16", "bfloat16")
_LARGE = tuple((1 << bits) + more for bits in (24, 31) for more in (-1, 0, 1))
EDGES = (0, 1, -1, 2, 3, 127, 128, 255, 256, 257, 2_047, 2_049, 32_767, 32_768, 65_535, 65_536, 65_537, *_LARGE)
"""A narrower type, or a floating one, loses count here."""
DRAWN = 4_001
PAIRS = pairwise(
    broadcast=BROADCASTS, a=LAYOUTS, b=LAYOUTS, type=tuple(TYPES), form=("new", "in-place"), size=tuple(SHAPES)
)

ARITHMETIC: dict[str, tuple[Callable[..., Tensor], Callable[..., Any] | None]] = {
    "add": (torch.add, Tensor.add_),
    "sub": (torch.sub, Tensor.sub_),
    "mul": (lambda a, b: a * (b % 7), lambda a, b: a.mul_(b % 7)),
    "floor": (lambda a, b: torch.div(a, b.abs() + 1, rounding_mode="floor"), None),
    "trunc": (lambda a, b: torch.div(a, b.abs() + 1, rounding_mode="trunc"), None),
    "remainder": (lambda a, b: a % (b.abs() + 1), None),
    "scaled": (lambda a, b: torch.add(a, b, alpha=3), None),
    "next": (lambda a, b: a + 1, lambda a, b: a.add_(1)),
    "shift": (lambda a, b: (a >> 1) + b, None),
    "at-least": (lambda a, b: (a + b).clamp(min=3), None),
    "within": (lambda a, b: (a + b).clamp(2, 11), None),
    "sign": (lambda a, b: (a - b).sign(), None),
}
"""For all types but bool."""
LOGICAL: dict[str, tuple[Callable[..., Tensor], Callable[..., Any] | None]] = {
    **{name: (getattr(torch, name), None) for name in ("eq", "ne", "lt", "le", "gt", "ge")},
    "and": (torch.bitwise_and, Tensor.bitwise_and_),
    "or": (torch.bitwise_or, Tensor.bitwise_or_),
    "xor": (torch.bitwise_xor, Tensor.bitwise_xor_),
    "maximum": (torch.maximum, None),
    "minimum": (torch.minimum, None),
    "where": (lambda a, b: torch.where(a > b, a, b), None),
    "copy": (lambda a, b: torch.where(a > b, a, b).copy_(b), Tensor.copy_),
    "masked": (lambda a, b: a.masked_fill(b > 1, 1), lambda a, b: a.masked_fill_(b > 1, 1)),
    "both": (torch.logical_and, None),
    "either": (torch.logical_or, None),
    "absent": (lambda a, b: torch.logical_not(a), None),
    "mixed": (lambda a, b: a + b.to(torch.int64), None),
    "mixed-eq": (lambda a, b: a.to(torch.int64) == b, None),
    "truth": (lambda a, b: a.bool() & (b > 0), None),
    "one": (lambda a, b: a == 1, None),
}

DIMENSIONS: tuple[tuple[int, ...], ...] = ((0,), (1,), (2,), (3,), (-1, 0), (1, 2), (2, 3), (0, 2, 3), (0, 1, 2, 3))
REDUCED = pairwise(layout=LAYOUTS, type=tuple(TYPES), dim=tuple("012345678"), keep=("keep", "drop"), size=tuple(SHAPES))


def _of(whole: Tensor, name: str) -> Tensor:
    """Return whole numbers in a type, wrapped into what it is to hold."""
    limit = _WITHIN[name]
    if name in ("uint8", "bool"):
        return whole.remainder(limit).to(TYPES[name])
    return torch.where(whole.abs() < limit, whole, whole.remainder(limit)).to(TYPES[name])


def _arithmetic(i: int, row: Row, whole: Tensor) -> Tensors:
    first, second = shapes(SHAPES[row["size"]], row["broadcast"])
    numbers = _of(whole, row["type"])
    a = arranged(tiled(numbers[i:], *first), row["a"])
    b = arranged(tiled(numbers[3 * i + 7 :], *second), row["b"])
    forms = LOGICAL if row["type"] == "bool" else {**ARITHMETIC, **LOGICAL}
    return {name: call_in_form((*each, None), row["form"], a, (b,), row["a"]) for name, each in forms.items()}


def _reduced(i: int, row: Row, whole: Tensor) -> Tensors:
    x = arranged(tiled(_of(whole, row["type"])[i:], *SHAPES[row["size"]]), row["layout"])
    dim, keep = DIMENSIONS[int(row["dim"])], row["keep"] == "keep"
    parts: Tensors = {
        "sum": x.sum(dim, keepdim=keep),
        "any": (x > 1).any(dim[0], keepdim=keep),
        "all": (x >= 1).all(dim[0], keepdim=keep),
        "count": torch.count_nonzero(x, dim),
        "total": x.sum(),
        "whole-any": (x > 1).any(),
        "cumsum": x.cumsum(dim[0]),
        "running": x.long().clone().cumsum_(dim[0]),
        "amax": x.amax(dim, keepdim=keep),
        "amin": x.amin(dim, keepdim=keep),
        "nonzero": (x > 1).nonzero(),
        "taken": x[x > 1],
    }
    if row["type"] == "bool":
        return parts
    top, at = x.max(dim[0], keepdim=keep)
    low, low_at = x.min(dim[0], keepdim=keep)
    return parts | {
        "max": top,
        "max-at": at,
        "min": low,
        "min-at": low_at,
        "argmax": x.argmax(dim[0], keepdim=keep),
        "argmin": x.argmin(dim[0], keepdim=keep),
        "most": x.max(),
        "least": x.min(),
        "most-at": x.argmax(),
        "sort": x.sort(dim=dim[0], stable=True)[0],
        "sort-at": x.sort(dim=dim[0], stable=True)[1],
        "down-at": x.sort(dim=dim[0], stable=True, descending=True)[1],
        "top": x.topk(1, dim[0])[0],
        "unique": x.unique(),
    }


def _counted(i: int, row: Row, whole: Tensor) -> Tensors:
    """Return counters of one number, 0-dimensional or not, that pass the ends of narrower types."""
    start, kind = int(row["start"]), getattr(torch, row["type"])
    t = torch.full(SCALARS[row["shape"]], start, dtype=kind, device=whole.device)
    u = t.clone()
    u += 1
    plain, each = torch.add(t, 2), torch.add(t, t.new_ones(t.shape), alpha=3)
    below = t.sub_(1)
    copy = t.new_zeros(t.shape).copy_(t)
    parts = {"step": u, "add": plain, "each": each, "sub": below, "copy": copy}
    return {f"{name}-{row['type']}": value for name, value in parts.items()}


def _read(i: int, row: Row, whole: Tensor) -> Tensors:
    """Return what the host reads of numbers of a type."""
    kind = getattr(torch, row["type"])
    numbers = [v for v in (*EDGES, 3.25, -0.75, 1.0 + 2.0**-20, 1e-7) if _holds(v, kind)]
    there = torch.tensor(numbers, dtype=kind).to(whole.device)
    every = range(len(numbers))
    return {
        "read": torch.tensor([there[i].item() for i in every], dtype=torch.float64),
        "list": torch.tensor(there.tolist(), dtype=torch.float64),
        "truth": torch.tensor([bool(there[i]) for i in every]),
        "only": torch.tensor([there[i : i + 1].item() for i in every], dtype=torch.float64),
    }


def _holds(value: float, kind: torch.dtype) -> bool:
    """Return whether a type holds a number exactly."""
    if kind == torch.bool:
        return value in (0, 1)
    if not kind.is_floating_point:
        return value == int(value) and torch.iinfo(kind).min <= value <= torch.iinfo(kind).max
    return abs(value) <= torch.finfo(kind).max and float(torch.tensor(value, dtype=kind)) == value


def _numbers(draw: HashedDraw) -> Tensors:
    """Return the edges, and numbers between them of both signs and all sizes, many of them equal."""
    size = torch.exp2(draw("size", DRAWN - 2 * len(EDGES), low=0, high=34)).long()
    small = draw.integers("small", len(size), below=9) - 4
    mixed = torch.where(draw("which", len(size)) > 0, size * draw("sign", len(size)).sign().long(), small)
    edges = torch.tensor([*EDGES, *(-e for e in EDGES)])
    joined = torch.cat([edges, mixed])
    return {"whole": joined[draw.permutation("order", len(joined))]}


SCALARS: dict[str, tuple[int, ...]] = {"()": (), "(1,)": (1,), "(3,)": (3,)}
_HELD = {"int64": 1 << 62, "int32": (1 << 31) - 1, "float32": 1 << 24}
_COUNTERS = [
    {"type": name, "start": str(start), "shape": shape}
    for name, most in _HELD.items()
    for start in EDGES
    if abs(start) + 7 < most
    for shape in SCALARS
]
_READ = [{"type": name} for name in (*TYPES, *FLOATS, "float64")]
RECIPES: dict[str, Builder] = {
    "cover_whole": covered(_numbers, (PAIRS, _arithmetic), scale="none"),
    "cover_whole_reductions": covered(_numbers, (REDUCED, _reduced), scale="none"),
    "cover_counters": covered(
        lambda draw: {"whole": torch.zeros(1, dtype=torch.int64)}, (_COUNTERS, _counted), (_READ, _read), scale="none"
    ),
}
