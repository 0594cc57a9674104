"""Health: whether many tensors are finite, asked on their device at once."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from .reductions import largest


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether every element of every floating or complex tensor is finite.

    Args:
        tensors: Any shapes, dtypes and devices; integer tensors count as finite.

    Syncs: one read per device and dtype.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for tensor in tensors:
        if tensor.is_complex():  # the magnitude of a finite complex number can overflow
            tensor = torch.view_as_real(tensor.detach().resolve_conj())
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append(tensor.detach())
    return all(bool(largest(group).isfinite().all()) for group in groups.values())


def non_finite_names(named: Iterable[tuple[str, Tensor]], limit: int = 5) -> tuple[str, ...]:
    """Return the names of tensors that are not finite, in their order; for the rare path.

    Args:
        named: Names and tensors.
        limit: Most names; one more entry then says how many others there are.

    Syncs: one read per tensor.

    Examples:
        >>> non_finite_names([("a", torch.ones(2)), ("b", torch.tensor([1.0, float("inf")]))])
        ('b',)
    """
    bad = [name for name, tensor in named if not bool(tensor.detach().isfinite().all())]
    return tuple(bad) if len(bad) <= limit else (*bad[:limit], f"and {len(bad) - limit} more")
