"""Gradients: their layout as the fused kernels need it, and their norm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import methodcaller

import torch
from torch import Tensor

from ..errors import InvalidCallError
from .reductions import norms, told

Kind = tuple[torch.layout, torch.device, torch.dtype]
InFormat = tuple[Callable[[Tensor], bool], list[int]]
_FORMATS: tuple[tuple[int | None, Callable[[Tensor], bool]], ...] = (
    (None, Tensor.is_contiguous),
    (4, methodcaller("is_contiguous", memory_format=torch.channels_last)),
    (5, methodcaller("is_contiguous", memory_format=torch.channels_last_3d)),
)
"""By the number of dimensions, or for any: whether a tensor fills its memory in this order."""


def kinds_of(grads: list[Tensor]) -> set[Kind]:
    """Return the layouts, devices and dtypes of gradients.

    Raises:
        InvalidCallError: A gradient is sparse or complex, which no fused kernel takes.
    """
    kinds = {(g.layout, g.device, g.dtype) for g in grads}
    if any(layout is not torch.strided or dtype.is_complex for layout, _, dtype in kinds):
        for g in grads:
            if g.layout is not torch.strided or g.is_complex():
                raise InvalidCallError(
                    f"A gradient of shape {tuple(g.shape)} is {'complex' if g.is_complex() else 'sparse'}, which the fused"
                    " step cannot take. Set guard.step=reference, or make the gradient dense and real."
                )
    return kinds


def has_no_gaps(p: Tensor) -> bool:
    """Return whether the elements of a tensor fill a stretch of memory, each place once, as the kernels assume."""
    return p.layout is torch.strided and torch.empty_like(p, device="meta").stride() == p.stride()


def by_format(tensors: Sequence[Tensor]) -> list[InFormat]:
    """Return quick tests of how tensors lie in memory: for each format a test and the places of its tensors.

    Empty if a tensor has none of the known formats.
    """
    left = list(range(len(tensors)))
    found: list[InFormat] = []
    for ndim, dense in _FORMATS:
        places = [i for i in left if ndim in (None, tensors[i].ndim) and dense(tensors[i])]
        left = sorted(set(left) - set(places))
        if places:
            found.append((dense, places))
    return [] if left else found


def same_layout(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors of one shape have the same memory order; the stride of a size of 1 does not matter."""
    return a.stride() == b.stride() or all(
        x == y for x, y, size in zip(a.stride(), b.stride(), a.shape, strict=True) if size > 1
    )


def total_norm(grads: list[Tensor], kinds: set[Kind], each: list[Tensor] | None = None) -> Tensor:
    """Return the global 2-norm of gradients in float32 (float64 for float64), also of half-precision ones.

    Args:
        grads: Any shapes; of one device and dtype for a single launch.
        kinds: Their :func:`kinds_of`.
        each: Receives the norm of every gradient, in their order, 0-dim and of the result's device and dtype, at no extra cost;
            None: not wanted.

    Returns:
        A 0-dim tensor on the device of the first gradient: infinite if the squares of finite numbers overflow, not finite if a
        gradient is not.

    Syncs: none.
    """
    groups: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    if len(kinds) == 1:
        groups[grads[0].device, grads[0].dtype] = grads
    else:
        for g in grads:
            groups.setdefault((g.device, g.dtype), []).append(g)
    singles = [norms(members) for members in groups.values()]
    totals = [torch.linalg.vector_norm(torch.stack(single)) for single in singles]
    if each is not None:
        by_gradient = {
            id(g): n for of, ns in zip(groups.values(), singles, strict=True) for g, n in zip(of, ns, strict=True)
        }
        each += [by_gradient[id(g)].to(totals[0]) for g in grads]
    if len(totals) == 1:
        return told(totals[0], grads)
    return told(torch.linalg.vector_norm(torch.stack([n.to(totals[0].device, totals[0].dtype) for n in totals])), grads)


def each_norm(grads: list[Tensor]) -> list[Tensor]:
    """Return the 2-norm of every gradient, as 0-dim tensors of one device and dtype; none if one is sparse or complex.

    Syncs: none.
    """
    if any(g.layout is not torch.strided or g.is_complex() for g in grads):
        return []
    each: list[Tensor] = []
    total_norm(grads, kinds_of(grads), each)
    return each
