"""Error metrics: how far a tensor is from its float64 reference, and which precision that speaks of."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .deviation import Errors

UNIT = {torch.float64: 2.0**-53, torch.float32: 2.0**-24, torch.float16: 2.0**-11, torch.bfloat16: 2.0**-8}
"""Unit roundoff: half the distance from 1 to the next number."""
_IEEE, _TF32, _BF16 = 2e-5, 1.2e-3, 1e-2
"""Largest ``rms`` of a linear operation for each class. Measured on 30 convolutions and products: float32 up to 1e-6, rounding
of inputs to 10 bits always 2.9e-4 to 3.1e-4 (twice that where a device cuts off instead), to 7 bits 1.6e-3 to 2.9e-3."""
_WRONG_ELEMENT = 1024.0
"""In float32, an element that is so many roundoffs off is wrong, however small the norm of all errors."""


def kinds(tensor: Tensor) -> Tensor:
    """Return 0 for each finite element, 1 for +inf, -1 for -inf, 2 for NaN; int8."""
    kind = torch.zeros(tensor.shape, dtype=torch.int8)
    kind[tensor == torch.inf], kind[tensor == -torch.inf] = 1, -1
    kind[tensor != tensor] = 2  # only NaN differs from itself
    return kind


def measure(
    value: Tensor, reference: Tensor, scale: Tensor | None = None, floor: float = 0.0, unit: float | None = None
) -> Errors:
    """Return the errors of a tensor.

    Args:
        value: What the device computed, on the CPU, in its own type.
        reference: float64, or for exact operations any type, of the same shape.
        scale: For ``q``: the sum of the absolute terms of each element; None: not measured.
        floor: Smallest norm that the error is divided by: for gradients whose true value is almost zero.
        unit: Unit roundoff of what was computed in, where the result is of a finer type.

    Returns:
        The errors over all elements that are finite in both.
    """
    if value.shape != reference.shape:
        return Errors(rms=float("inf"), q=None, maxrel=float("inf"), nf=max(value.numel(), 1))
    if not value.is_floating_point():
        wrong = int((value != reference.to(value.dtype)).sum())
        share = wrong / max(value.numel(), 1)
        q = float("inf") if wrong else None  # a limit of one element allows no wrong place or truth
        return Errors(rms=share**0.5, q=q, maxrel=float(wrong > 0), nf=0)
    unit = max(unit or 0.0, UNIT[value.dtype])
    y, r = value.double(), reference.double()
    zero = torch.zeros((), dtype=torch.float64)
    nf, error, size, finite = 0, (y - r).abs(), r, None
    if not math.isfinite(float(error.sum())):
        finite = torch.isfinite(y) & torch.isfinite(r)
        nf = int((kinds(y) != kinds(r)).sum())
        error, size = torch.where(finite, error, zero), torch.where(finite, r, zero)
    total = float(error.norm())
    rms = total / norm if (norm := max(float(size.norm()), floor)) > 0 else (0.0 if total == 0 else float("inf"))
    largest = float(error.max()) if error.numel() else 0.0
    top = max(float(size.abs().max()) if size.numel() else 0.0, floor / max(size.numel(), 1) ** 0.5)
    maxrel = largest / top if top > 0 else (0.0 if largest == 0 else float("inf"))
    q = None
    if scale is not None and error.numel():
        terms = (
            scale.double()
            if finite is None
            else torch.where(finite, scale.double(), torch.ones((), dtype=torch.float64))
        )
        per = torch.where(error == 0, zero, error / (unit * terms))  # 0 / 0 is no error
        q = float(per.max())
    return Errors(rms=rms, q=q, maxrel=maxrel, nf=nf)


def value_scale(reference: Tensor) -> Tensor:
    """Return the terms of elements whose operation is not linear: their own size and that of their neighbours."""
    r = torch.where(torch.isfinite(reference), reference, torch.zeros_like(reference)).abs().double()
    return r + float(r.square().mean().sqrt()) if r.numel() else r


def element_scale(reference: Tensor, dtype: torch.dtype, *, near: bool = False) -> Tensor:
    """Return the terms by which each element counts against itself, however small it is.

    Args:
        reference: float64, or whole numbers.
        dtype: What was computed in: arithmetic may flush what is below its smallest normal number to zero.
        near: Whether terms may cancel: an element then counts against the size of its neighbours as well.

    Returns:
        Terms of the same shape.
    """
    terms = value_scale(reference) if near else reference.double().abs()
    tiny = torch.finfo(dtype).tiny
    flushed = torch.where(terms < 2 * tiny, tiny / UNIT[dtype], 0.0)
    return torch.maximum(torch.where(torch.isfinite(terms), terms, torch.ones_like(terms)), flushed)


def precision_class(dtype: torch.dtype, errors: Errors) -> str:
    """Return what a linear operation was really computed in.

    Args:
        dtype: Of its inputs.
        errors: Of its result against float64 on these inputs.

    Returns:
        ``ieee-fp32``, ``tf32``, ``fp16``, ``bf16`` or ``broken``. Rounding to tf32 and to float16 look alike in numbers of
        ordinary size, and are called tf32; ``linear/matmul-range`` tells them apart.
    """
    if errors.nf or not errors.rms <= _BF16 * (2.0 if dtype == torch.bfloat16 else 1.0):
        return "broken"
    if dtype == torch.float16:
        return "fp16"
    if dtype == torch.bfloat16:
        return "bf16"
    if errors.rms <= _IEEE:
        return "ieee-fp32" if errors.q is None or errors.q <= _WRONG_ELEMENT else "broken"
    return "tf32" if errors.rms <= _TF32 else "bf16"
