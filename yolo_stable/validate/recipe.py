"""Recipes: an operation with its inputs, run on the CPU in float64, and twice on the device with dirty memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from .check import CheckCase
from .evidence import CheckEvidence, Comparison
from .hashed import HashedDraw, sha256_of
from .machine import Machine
from .metrics import UNIT, element_scale, value_scale
from .packing import MARK, Packing, Pieces, misshapen
from .sketch import total_sketch

Tensors = dict[str, Tensor]
Scale = Literal["linear", "value", "element", "none"] | Callable[[Tensors], Tensors]
_OUTPUTS = 16
"""Times the largest input: no larger than that is what an operation takes its memory from."""
LOW = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to compute, on what."""

    inputs: Tensors
    """By name; floating ones in float64, to be rounded to the precision of the case."""
    compute: Callable[..., Tensor | Mapping[str, Tensor]]
    """Takes the inputs in their order; returns one tensor, or several by name."""
    gradients: tuple[str, ...] = ()
    """The inputs whose gradients are compared as well."""
    scale: Scale = "value"
    """What ``q`` is measured in: ``linear``: the operation on absolute values; ``value``: the size of the result and its
    neighbours; ``element``: the size of each element alone, except in outputs whose operation is called ``...~``."""
    in_float32: tuple[str, ...] = ()
    """Inputs that stay in float32 in a lower precision, such as BatchNorm's parameters."""
    same_type: bool = False
    """The reference is computed in the type of the inputs: for copies and integers, where nothing is rounded."""
    plain: tuple[str, ...] = ()
    """Inputs that keep their layout, such as indices and grids."""
    packed: bool = False
    """Whether the outputs are many and small, called ``operation|combination``: those of one operation are judged together."""


Builder = Callable[[Mapping[str, Any], HashedDraw], Recipe]
"""Makes the recipe of a check from its params, and from numbers that are the same everywhere."""


def unrounded(
    inputs: Callable[[HashedDraw], Tensors], compute: Callable[..., Tensor | Mapping[str, Tensor]]
) -> Builder:
    """Return the builder of an operation in which nothing is rounded."""
    return lambda params, draw: Recipe(inputs=inputs(draw), compute=compute, scale="none")


def value_and_gradients(
    function: Callable[..., Tensor], *inputs: Tensor, upstream: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Return the result of a function and its gradients by all inputs; ``upstream`` makes the result's own gradient."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    with torch.enable_grad():
        out = function(*leaves)
    return [out.detach(), *torch.autograd.grad(out, leaves, upstream(out))]


def run_recipe(
    recipe: Recipe, machine: Machine, case: CheckCase, draw: HashedDraw, memory: dict[Any, Any]
) -> CheckEvidence:
    """Run one case, and return all outputs and gradients beside their references, of two calls where they differ.

    Args:
        recipe: What to compute.
        machine: Where.
        case: In which layout and precision.
        draw: Where gradients of outputs come from.
        memory: Keeps the reference for the next case of the same inputs.
    """
    low = LOW.get(case.precision, torch.float32)
    types = {name: torch.float32 if name in recipe.in_float32 else low for name in recipe.inputs}
    inputs = {name: _rounded(t, types[name]) for name, t in recipe.inputs.items()}
    key = (draw.key, low)
    if memory.get("key") != key:
        memory.clear()
        made = _reference(recipe, inputs, draw, low)
        memory.update(key=key, made=made, sketch=total_sketch(_shown(recipe, made[0])), sha256=sha256_of(inputs))
    reference, scales = memory["made"]
    pieces: dict[str, Pieces] = {}
    linear = recipe.scale == "linear"
    evidence = CheckEvidence(input_sha256=memory["sha256"], reference=memory["sketch"], is_linear=linear)
    calls = []
    with machine.computing(strict=case.precision != "configured"):
        for dirt in (float("nan"), 1e30):
            placed = {
                n: machine.place(t) if n in recipe.plain else lay_out(machine.place(t), case.layout, first=i == 0)
                for i, (n, t) in enumerate(inputs.items())
            }
            machine.dirty(dirt, _OUTPUTS * max((t.numel() for t in inputs.values()), default=0))
            parts = compute_on(recipe, placed, draw, low, machine, layout=case.layout)
            calls.append({name: machine.fetch(t) for name, t in parts.items()})
    if recipe.packed:
        evidence.problems += misshapen(calls[0], reference)
        if evidence.problems:
            return evidence
        packing = Packing.of(calls[0])
        pieces = packing.pieces(calls[0])
        calls = [packing.pack(values) for values in calls]
        reference, scales = packing.pack(reference), packing.pack(scales) if scales else {}
    first, second = calls
    all_gradients = sum(float(r.norm()) ** 2 for n, r in reference.items() if n.startswith("grad:")) ** 0.5
    for name, r in reference.items():
        floor = 1e-6 * all_gradients if name.startswith("grad:") else 0.0  # of a gradient that is almost zero
        if callable(recipe.scale) and name in scales:  # terms may cancel: the error is relative to them
            floor = float(scales[name].norm())
        comparison = Comparison(
            name=name, value=first[name], reference=r, scale=scales.get(name), floor=floor, unit=UNIT[low],
            pieces=pieces.get(name, ()),
        )  # fmt: skip
        evidence.comparisons.append(comparison)
        if not same_bits(first[name], second[name]):
            evidence.comparisons.append(replace(comparison, value=second[name], call=2))
    evidence.determinism["poison"] = describe_change(first, second)
    return evidence


def _shown(recipe: Recipe, reference: Tensors) -> Iterable[Tensor]:
    """Return the tensors that a reference is sketched by."""
    every = reference.values()
    return [torch.cat([t.reshape(-1).double() for t in every])] if recipe.packed else every


def lay_out(tensor: Tensor, layout: str, *, first: bool = False) -> Tensor:
    """Return the numbers as one of ``check.LAYOUTS`` says that they lie in memory; integers and scalars as they are.

    In ``mixed`` the ``first`` of an operation's inputs is the one that lies in another order.
    """
    if not tensor.is_floating_point() or tensor.ndim == 0:
        return tensor
    if layout == "channels_last" or (layout == "mixed" and first):
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
    if layout == "view":  # every second element of a larger tensor along the last dimension, and an offset in the first
        rows, *rest = tensor.shape if tensor.ndim > 1 else (0, *tensor.shape)
        wide = tensor.new_full((rows + 1, *rest[:-1], 2 * rest[-1]), 7.0)
        view = wide[1:, ..., ::2] if tensor.ndim > 1 else wide[0, ::2]
        return view.copy_(tensor)
    if layout == "chunk":  # the second half of a larger tensor's channels
        axis = min(tensor.ndim - 1, 1)
        shape = [2 * n if i == axis else n for i, n in enumerate(tensor.shape)]
        return tensor.new_full(shape, 7.0).narrow(axis, tensor.shape[axis], tensor.shape[axis]).copy_(tensor)
    if layout == "transposed" and tensor.ndim > 1:  # as heads are split off in attention
        a, b = (1, 2) if tensor.ndim > 2 else (0, 1)
        return tensor.transpose(a, b).contiguous().transpose(a, b)
    return tensor.contiguous()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors on the CPU are equal bit for bit, NaN and the sign of zero included."""
    return a.shape == b.shape and torch.equal(_bits(a), _bits(b))


def describe_change(a: Tensors, b: Tensors) -> str:
    """Return ``bitwise``, or by how much two runs of the same differ, relative to the largest element."""
    different = [name for name in a if not same_bits(a[name], b[name])]
    if not different:
        return "bitwise"
    largest = 0.0
    for name in different:
        x, y = a[name].double(), b[name].double()
        if x.shape != y.shape or not bool((torch.isfinite(x) == torch.isfinite(y)).all()):
            return f"differs ({name}: other elements are finite)"
        finite = torch.isfinite(x)
        top = float(x[finite].abs().max()) if bool(finite.any()) else 0.0
        largest = max(largest, float((x - y)[finite].abs().max()) / max(top, 1e-300) if bool(finite.any()) else 1.0)
    return f"differs ({largest:.1e})"


def _bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else tensor.reshape(-1)


def _rounded(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor.to(dtype) if tensor.dtype == torch.float64 else tensor


def _reference(recipe: Recipe, inputs: Tensors, draw: HashedDraw, low: torch.dtype) -> tuple[Tensors, Tensors]:
    """Return the float64 results of inputs that have been rounded already, and what ``q`` is measured in."""
    exact = inputs if recipe.same_type else {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    results = compute_on(recipe, exact, draw, low, None)
    if recipe.scale == "none":
        return results, {}
    if recipe.scale == "linear":
        positive = {n: t.abs() if t.is_floating_point() else t for n, t in exact.items()}
        return results, compute_on(recipe, positive, draw, low, None, absolute=True)
    if callable(recipe.scale):
        return results, recipe.scale(exact)
    if recipe.scale == "element":
        return results, {n: element_scale(r, low, near=n.split(MARK)[0].endswith("~")) for n, r in results.items()}
    return results, {n: value_scale(r) for n, r in results.items() if r.is_floating_point()}


def compute_on(
    recipe: Recipe,
    inputs: Tensors,
    draw: HashedDraw,
    low: torch.dtype,
    machine: Machine | None,
    *,
    absolute: bool = False,
    layout: str = "contiguous",
) -> Tensors:
    """Compute outputs and gradients where the inputs are.

    Args:
        recipe: What to compute.
        inputs: On the machine, or on the CPU.
        draw: Where gradients of outputs come from.
        low: What those are rounded to.
        machine: None for the reference.
        absolute: Whether gradients of outputs are made positive, as the inputs were.
        layout: How gradients of outputs lie in memory.
    """
    leaves = {n: t.detach().requires_grad_(True) if n in recipe.gradients else t for n, t in inputs.items()}
    found = recipe.compute(*leaves.values())
    outputs = dict(found) if isinstance(found, Mapping) else {"out": found}
    results = {name: t.detach() for name, t in outputs.items()}
    roots = {name: t for name, t in outputs.items() if t.requires_grad}
    if recipe.gradients:
        upstream = []
        for name, root in roots.items():
            g = draw(f"{name}/upstream", *root.shape).to(low)
            g = (g.abs() if absolute else g).to(root.dtype)
            upstream.append(g if machine is None else lay_out(machine.place(g), layout))
        wanted = [leaves[n] for n in recipe.gradients]
        grads = torch.autograd.grad(list(roots.values()), wanted, upstream, allow_unused=True)
        for name, leaf, grad in zip(recipe.gradients, wanted, grads, strict=True):
            results[f"grad:{name}"] = torch.zeros_like(leaf) if grad is None else grad
    return results
