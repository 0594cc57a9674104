"""Rules that compare the result of an operation with the same call in float64, one for each kind of operation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..metrics import UNIT, kinds
from . import operation_kinds
from .call import SMALLEST, HostCall, flushed, mapped, name_of, to_absolute
from .limits import Limits, limits_of

_STEP = 2.0**-20
"""Relative change of an input, to measure how much a result depends on it."""
_MANY = 64
"""With so many elements the typical error is known."""
_LARGEST = 0.99
"""Of the largest number of a type: beyond, a result may be infinite or not."""

Judgement = tuple[float, str]
"""The error in parts of its limit (up to 1 is right; infinite: no rounding explains it), and in words where it is."""
Rule = Callable[[HostCall, list[Any]], Judgement]
RIGHT: Judgement = (0.0, "")


def _wrong(words: str) -> Judgement:
    return math.inf, words


def _worse(a: Judgement, b: Judgement) -> Judgement:
    return max(a, b, key=lambda judgement: judgement[0])


class NotJudgedError(Exception):
    """The reference cannot say what is right here; the message says why."""


@lru_cache(maxsize=4096)
def rule_of(func: Any) -> Rule | None:
    """Return the rule that judges an operation; None where nothing is computed, or by chance."""
    name, tags = name_of(func), getattr(func, "tags", ())
    base, space = operation_kinds.base_of(name), str(func).split(".")[0]
    if space == "torchvision":
        return kept_boxes if name == "nms" else general
    if space != "aten" or base in operation_kinds.MEMORY or torch.Tag.nondeterministic_seeded in tags or func.is_view:
        return None
    if base == "round" and "decimals" in str(func):
        return None  # rounds a product that is rounded itself
    if base in operation_kinds.PUT:
        return placed
    if base in ("argmax", "argmin"):
        return where_it_is
    if base in operation_kinds.PLACES and len(func._schema.returns) == 2:
        return with_places
    if base in operation_kinds.EXACT and name not in operation_kinds.LISTS_TO_NUMBERS:
        return general if "reduce" in str(func) else exact
    if base in operation_kinds.LINEAR:
        return linear
    if torch.Tag.pointwise in tags or name.startswith(("_fused_", "_amp_")):
        return pointwise
    if name.startswith("_foreach_") and name not in operation_kinds.LISTS_TO_NUMBERS:
        return pointwise
    return general


def exact(call: HostCall, found: list[Any]) -> Judgement:
    """Nothing is rounded, or once and in the same way everywhere: every element is equal."""
    allowed = [call.run()]
    if _equal(found, allowed):
        return RIGHT
    if call.has_denormals():
        allowed.append(call.changed(flushed).run())
    worst = RIGHT
    for k, value in enumerate(found):
        expected = [results[k] for results in allowed]
        worst = _worse(worst, _unequal(value, expected, k))
    return worst


def pointwise(call: HostCall, found: list[Any]) -> Judgement:
    """Each result depends on one element of each input, and may lose some roundoffs of each."""
    if not _has_floats(found):
        return exact(call, found)
    doubled = call.doubled()
    reference = doubled.run()
    size = _and_neighbours if operation_kinds.base_of(call.name) in operation_kinds.CANCELLING else torch.abs
    terms = [size(r) if _is_float(r) else r for r in reference]
    for i, argument in enumerate(doubled.args):
        if not any(_is_float(leaf) for leaf in _leaves(argument)):
            continue
        moved = doubled.changed(_times(1 + _STEP), i).run()
        for k, (term, r, m) in enumerate(zip(terms, reference, moved, strict=True)):
            if _is_float(r):
                terms[k] = term + _gap(m, r)
    return _against(call, found, reference, terms, limits_of(call.name, "pointwise"))


def linear(call: HostCall, found: list[Any]) -> Judgement:
    """Sums of products: what may be lost is measured against the sum of the absolute terms."""
    if not _has_floats(found):
        return exact(call, found)
    reference = call.doubled().run()
    terms = call.doubled().changed(to_absolute).run()
    return _against(call, found, reference, terms, limits_of(call.name, "linear"))


def general(call: HostCall, found: list[Any]) -> Judgement:
    """Anything else: a random change of all inputs measures how much the result depends on them."""
    if not _has_floats(found):
        return exact(call, found)
    doubled = call.doubled()
    reference = doubled.run()
    terms = [_and_neighbours(r) if _is_float(r) else r for r in reference]
    moved = doubled.changed(_signs(torch.Generator().manual_seed(0))).run()
    for k, (r, m) in enumerate(zip(reference, moved, strict=True)):
        if _is_float(r):
            terms[k] = terms[k] + _and_neighbours(_gap(m, r))
    return _against(call, found, reference, terms, limits_of(call.name, "general"))


def placed(call: HostCall, found: list[Any]) -> Judgement:
    """Numbers put to indices: added up, or written; what is written twice to one place is not judged."""
    if call.argument(3, "accumulate", False):
        return linear(call, found)
    verdict = exact(call, found)
    if verdict[0] > 1:
        target, indices = call.args[0], call.args[1]
        counts = torch.zeros(target.shape, dtype=torch.int64)
        torch.ops.aten.index_put_(counts, indices, torch.ones((), dtype=torch.int64), True)
        if int(counts.max()) > 1:
            raise NotJudgedError("several numbers for one place")
    return verdict


def where_it_is(call: HostCall, found: list[Any]) -> Judgement:
    """The place of the largest: any of several equal ones is right."""
    x, dim, place = call.args[0], call.argument(1, "dim"), found[0]
    right = call.run()[0]
    if place.shape != right.shape:
        return _wrong(f"result has shape {tuple(place.shape)} and not {tuple(right.shape)}")
    if bool((place == right).all()):
        return RIGHT
    flat, dim = (x.reshape(-1), 0) if dim is None else (x, dim)
    size = flat.shape[dim]
    keep = bool(call.argument(2, "keepdim", False)) and call.argument(1, "dim") is not None
    a, b = (t if keep else t.unsqueeze(dim) for t in (place, right))
    if bool(((a < 0) | (a >= size)).any()):
        return _wrong("a place lies outside")
    wrong = flat.gather(dim, a) != flat.gather(dim, b)
    if bool(wrong.any()):
        return _wrong(f"{int(wrong.sum())} of {wrong.numel()} places do not hold the largest")
    return RIGHT


def with_places(call: HostCall, found: list[Any]) -> Judgement:
    """Values and their places: the values are equal, and each place holds its value."""
    right = call.run()
    if call.name == "topk" and not call.argument(4, "sorted", True):
        raise NotJudgedError("in no order")
    verdict = exact_values(found[0], right[0])
    if verdict[0] > 1 or torch.equal(found[1], right[1]):
        return verdict
    x, places, values = call.args[0], found[1], found[0]
    if call.name == "max_pool2d_with_indices":
        held = x.flatten(2).gather(2, places.flatten(2).clamp(0, x[0, 0].numel() - 1)).view(values.shape)
    else:
        dim = call.argument(2, "dim", -1) if call.name == "topk" else _dimension(call)
        a, v = places, values
        if a.ndim < x.ndim:
            a, v = a.unsqueeze(dim), v.unsqueeze(dim)
        held, values = x.gather(dim, a.clamp(0, x.shape[dim] - 1)), v
        if call.name in ("sort", "topk") and bool((a.sort(dim).values.diff(dim=dim) == 0).any()):
            return _wrong("a place is given twice")
        if call.name == "sort" and call.kwargs.get("stable"):
            return exact_values(found[1], right[1])
    wrong = (held != values) & ~((held != held) & (values != values))
    if bool(wrong.any()):
        return _wrong(f"{int(wrong.sum())} of {wrong.numel()} places do not hold their value")
    return RIGHT


def kept_boxes(call: HostCall, found: list[Any]) -> Judgement:
    """Which boxes are kept; judged where no overlap is so near to the threshold that rounding decides."""
    boxes, scores, threshold = call.args
    if scores.unique().numel() < scores.numel():
        raise NotJudgedError("equal scores")
    near = [call.func(boxes.double(), scores.double(), threshold + gap) for gap in (-1e-4, 0.0, 1e-4)]
    if not (torch.equal(near[0], near[1]) and torch.equal(near[1], near[2])):
        raise NotJudgedError("overlaps at the threshold")
    return RIGHT if torch.equal(found[0], near[1]) else _wrong("other boxes are kept")


def exact_values(value: Tensor, right: Tensor) -> Judgement:
    """Return the verdict on one tensor that must be equal."""
    return _unequal(value, [right], 0)


def _dimension(call: HostCall) -> int:
    keyed = call.kwargs.get("dim")
    if keyed is not None:
        return int(keyed)
    numbers = [a for a in call.args[1:] if isinstance(a, int) and not isinstance(a, bool)]
    return numbers[0] if numbers else -1


def _against(call: HostCall, found: list[Any], reference: list[Any], terms: list[Any], limits: Limits) -> Judgement:
    """Compare each floating result with its reference within limits; all others must be equal."""
    flush = call.changed(flushed).doubled().run() if call.has_denormals() else reference
    lowest = max((UNIT[t.dtype] for t in call.tensors if _is_float(t)), default=0.0) if limits.by_inputs else 0.0
    largest = max((t.numel() for t in call.tensors), default=0)
    worst = RIGHT
    for k, (value, r, term, f) in enumerate(zip(found, reference, terms, flush, strict=True)):
        if not _is_float(value) or value.dtype == torch.float64:
            verdict = RIGHT if _is_float(value) else _unequal(value, [r], k)
        elif value.shape != r.shape:
            verdict = _wrong(f"result {k} has shape {tuple(value.shape)} and not {tuple(r.shape)}")
        else:
            unit = max(UNIT[value.dtype], lowest)
            count = largest / max(value.numel(), 1)
            limit = (limits.terms + limits.each * count) * UNIT[torch.float32] * term + limits.floor(value.dtype)
            if unit > UNIT[torch.float32]:
                limit = limit + unit * (limits.rounding * r.abs() + limits.low * term + limits.neighbours * _typical(r))
            if f is not r:
                limit = limit + _gap(f, r, 1.0)
            verdict = _off(value, r, limit, k)
            if verdict[0] <= 1 and unit > UNIT[torch.float32] and limits.spread is not None:
                verdict = _worse(verdict, _spread(value, r, unit * limits.spread, k))
        worst = _worse(worst, verdict)
    return worst


def _off(value: Tensor, reference: Tensor, limit: Tensor, k: int) -> Judgement:
    y = value.double()
    error = (y - reference).abs()
    if not (math.isfinite(float(error.sum())) and math.isfinite(float(limit.sum()))):
        rounded = reference.to(value.dtype)
        near = (reference.abs() > _LARGEST * torch.finfo(value.dtype).max) & torch.isfinite(reference)
        wrong = (kinds(y) != kinds(rounded)) & ~near
        if bool(wrong.any()):
            words = f"result {k}: {int(wrong.sum())} of {wrong.numel()} elements are NaN or infinite where they should not be,"
            return _wrong(f"{words} or the reverse; the first is {_place(wrong)}")
        error = torch.where(torch.isfinite(error), error, 0.0)
        limit = torch.where(torch.isfinite(limit), limit, torch.inf)
    if not error.numel():
        return RIGHT
    ratio = error / limit
    top = float(ratio.max())
    if top <= 1:
        return top, ""
    at = int(ratio.argmax())
    is_, should = float(y.flatten()[at]), float(reference.flatten()[at])
    return top, (
        f"result {k}: {int((ratio > 1).sum())} of {ratio.numel()} elements are off, the worst {_index(at, value)} is"
        f" {is_:.7g} and should be {should:.7g}, {top:.3g} times what rounding explains"
    )


def _spread(value: Tensor, reference: Tensor, limit: float, k: int) -> Judgement:
    """Compare the typical error with the typical result: a sum in a lower precision shows there first."""
    size = _typical(reference)
    if value.numel() < _MANY or not size > 0:
        return RIGHT
    off = _typical(value.double() - reference) / (limit * size)
    words = f"result {k}: the typical element is {off:.3g} times as far off as rounding explains"
    return off, "" if off <= 1 else words


def _unequal(value: Any, allowed: list[Any], k: int) -> Judgement:
    if not isinstance(value, Tensor):
        same = any(value == a or (value != value and a != a) for a in allowed)
        return RIGHT if same else _wrong(f"result {k} is {value} and should be {allowed[0]}")
    right = allowed[0]
    if value.shape != right.shape or value.dtype != right.dtype:
        return _wrong(f"result {k} is {value.dtype} {tuple(value.shape)} and not {right.dtype} {tuple(right.shape)}")
    wrong = torch.ones(value.shape, dtype=torch.bool)
    for a in allowed:
        wrong &= (value != a) & ~((value != value) & (a != a))
    if value.is_floating_point():
        wrong &= ~((value.abs() < 4 * SMALLEST) & (right.abs() < 4 * SMALLEST))
    if not bool(wrong.any()):
        return RIGHT
    at = int(wrong.flatten().int().argmax())
    return _wrong(
        f"result {k}: {int(wrong.sum())} of {wrong.numel()} elements differ, the first {_index(at, value)} is"
        f" {value.flatten()[at].item()} and should be {right.flatten()[at].item()}"
    )


def _equal(found: list[Any], allowed: list[list[Any]]) -> bool:
    pairs = zip(found, allowed[0], strict=True)
    return all(
        a.dtype == b.dtype and torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b is None
        for a, b in pairs
    )


def _leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    mapped(value, found.append)
    return found


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _has_floats(values: list[Any]) -> bool:
    return any(_is_float(v) for v in values)


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda leaf: leaf * factor if _is_float(leaf) else leaf


def _signs(chance: torch.Generator) -> Callable[[Any], Any]:
    def change(leaf: Any) -> Any:
        if not _is_float(leaf):
            return leaf
        signs = torch.randint(0, 2, leaf.shape, generator=chance, dtype=torch.int8)
        return leaf * (1 + _STEP * (2.0 * signs - 1).double())

    return change


def _gap(moved: Tensor, reference: Tensor, step: float = _STEP) -> Tensor:
    gap = (moved - reference).abs_().mul_(1 / step)
    return gap if math.isfinite(float(gap.sum())) else gap.nan_to_num_(0.0, 0.0, 0.0)


def _and_neighbours(size: Tensor) -> Tensor:
    typical, size = _typical(size), size.abs()
    return (size if math.isfinite(float(size.sum())) else size.nan_to_num_(0.0, 0.0, 0.0)) + typical


def _typical(size: Tensor) -> float:
    if not size.numel():
        return 0.0
    norm = float(torch.linalg.vector_norm(size))
    if math.isfinite(norm):
        return norm / math.sqrt(size.numel())
    finite = size[torch.isfinite(size)]
    return float(finite.square().mean().sqrt()) if finite.numel() else 0.0


def _place(wrong: Tensor) -> str:
    return _index(int(wrong.flatten().int().argmax()), wrong)


def _index(at: int, tensor: Tensor) -> str:
    return str([int(i) for i in torch.unravel_index(torch.tensor(at), tensor.shape)]) if tensor.ndim else "number"
