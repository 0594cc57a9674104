"""Value ranges: whether a tensor is finite, its extremes, and where it is damaged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 64
"""Rows that are named at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a tensor held."""

    name: str = ""
    """The argument of the operation, such as ``input`` or ``tensors.2``."""
    dtype: str = ""
    """Such as ``float32``."""
    shape: tuple[int, ...] = ()
    low: float | None = None
    """Least finite element; None: there is none, or it is no longer known."""
    high: float | None = None
    """Greatest finite element, likewise."""
    non_finite: int = 0
    """Number of NaN and infinite elements."""
    numel: int = 0

    def __str__(self) -> str:
        between = "no finite element" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"
        bad = f", {self.non_finite} of {self.numel} not finite" if self.non_finite else ""
        return f"{self.name} {self.dtype} {list(self.shape)}: {between}{bad}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorDamage:
    """Where a tensor is not finite."""

    index: tuple[int, ...]
    """The first bad element, in the order of the indices."""
    value: str
    """``nan``, ``inf`` or ``-inf``: the first bad element."""
    non_finite: int
    rows: tuple[int, ...]
    """Indices along the first dimension that hold bad elements, at most 64."""
    only_minus: bool
    """It holds no NaN and no +Inf."""


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor detached; a complex one as pairs of real numbers, a sparse one as its values."""
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor._values()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def is_finite(tensor: Tensor) -> bool:
    """Return whether every element is finite.

    The sum is the fastest pass over memory, and finite only if all elements are. It may overflow although they are, so after a
    non-finite sum all elements are checked.

    Args:
        tensor: Any shape, dtype and device; integers and empty tensors count as finite.

    Syncs: one read, two more when the sum is not finite.
    """
    if not tensor.is_floating_point():
        if not tensor.is_complex():
            return True
        tensor = plain(tensor)
    if math.isfinite(tensor.sum().item()):
        return True
    tensor = plain(tensor)
    if not tensor.numel():
        return True
    return bool(in_memory_order(tensor).isfinite().all())


def in_memory_order(tensor: Tensor) -> Tensor:
    """Return a view permuted to the order of memory, as far as possible: reductions would copy it otherwise."""
    if tensor.is_contiguous():
        return tensor
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.ndim), key=lambda i: -strides[i]))


def range_of(name: str, tensor: Tensor) -> Range:
    """Return the range of a floating or complex tensor.

    Syncs: three reads.
    """
    values = plain(tensor)
    finite = values.isfinite()
    bad = values.numel() - int(finite.sum())
    some = values[finite] if bad else values
    low = high = None
    if some.numel():
        low, high = (float(edge) for edge in torch.aminmax(in_memory_order(some)))
    return Range(
        name=name,
        dtype=dtype_name(tensor.dtype),
        shape=tuple(tensor.shape),
        low=low,
        high=high,
        non_finite=bad,
        numel=tensor.numel(),
    )


def damage_of(tensor: Tensor) -> TensorDamage:
    """Return where a tensor is not finite.

    Syncs: four reads.
    """
    values = plain(tensor)
    bad = ~values.isfinite()
    flat = bad.reshape(-1)
    first = int(flat.to(torch.uint8).argmax())
    value = float(values.reshape(-1)[first])
    index = tuple(_unravel(first, tuple(values.shape)))
    rows = bad.reshape(bad.shape[0], -1).any(1).nonzero().reshape(-1)[:ROWS].tolist() if bad.ndim else []
    return TensorDamage(
        index=index[: tensor.ndim],
        value="inf" if value == math.inf else "-inf" if value == -math.inf else "nan",
        non_finite=int(bad.sum()),
        rows=tuple(rows),
        only_minus=bool((values[bad] == -math.inf).all()),
    )


def _unravel(flat: int, shape: tuple[int, ...]) -> list[int]:
    index = []
    for size in reversed(shape):
        flat, rest = divmod(flat, size)
        index.append(rest)
    return index[::-1]


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name without ``torch.``."""
    return str(dtype).removeprefix("torch.")
