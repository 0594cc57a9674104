"""Health: whether many tensors are finite, asked on their device at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from .reductions import largest

NAMES_KEPT = 5


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


def non_finite_names(named: Iterable[tuple[str, Tensor]]) -> tuple[str, ...]:
    """Return the names of tensors that are not finite, as :func:`first_names` does; for the rare path.

    Syncs: one read per tensor.

    Examples:
        >>> non_finite_names([("a", torch.ones(2)), ("b", torch.tensor([1.0, float("inf")]))])
        ('b',)
    """
    return first_names([name for name, tensor in named if not bool(tensor.detach().isfinite().all())])


def first_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the first names; one more entry says how many others there are."""
    return tuple(names) if len(names) <= NAMES_KEPT else (*names[:NAMES_KEPT], f"and {len(names) - NAMES_KEPT} more")
