"""Value range of one tensor, and whether it is finite; cheap to ask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 64
"""At most so many rows are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """What a tensor held."""

    name: str = ""
    """The argument of the operation, such as ``input`` or ``tensors.2``."""
    dtype: str = ""
    """Such as ``float32``."""
    shape: tuple[int, ...] = ()
    low: float | None = None
    """Least of the finite elements; None when there is none, or when they are no longer known."""
    high: float | None = None
    """Greatest of the finite elements, likewise."""
    non_finite: int = 0
    """How many elements are NaN or infinite."""
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
    """Nothing in it is NaN or +Inf."""


def plain(tensor: Tensor) -> Tensor:
    """Return the tensor without its history, a complex one as pairs of real numbers, a sparse one as its values."""
    tensor = tensor.detach()
    if tensor.is_sparse:
        tensor = tensor._values()
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def is_finite(tensor: Tensor) -> bool:
    """Return whether every element is finite.

    The sum is the fastest pass over memory there is, and finite only when all elements are. It can overflow although they
    are, so a sum that is not finite is followed by a look at the least and the greatest element.

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
    """Return a view whose elements lie one after the other, as far as permuting does it: reductions copy it otherwise."""
    if tensor.is_contiguous():
        return tensor
    strides = tensor.stride()
    return tensor.permute(sorted(range(tensor.ndim), key=lambda i: -strides[i]))


def range_of(name: str, tensor: Tensor) -> Range:
    """Return what a floating or complex tensor holds.

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
    """Return where a tensor that is not finite is not.

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
