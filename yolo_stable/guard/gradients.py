"""The gradients of a window as the fused kernels need them, and their norm."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InvalidCallError
from .reductions import norms, told

Kind = tuple[torch.layout, torch.device, torch.dtype]


def kinds_of(grads: list[Tensor]) -> set[Kind]:
    """Return the layouts, devices and dtypes that there are among gradients.

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
    """Return whether the elements of a tensor fill a stretch of memory, each place once, as the kernels take for granted."""
    return p.layout is torch.strided and torch.empty_like(p, device="meta").stride() == p.stride()


def total_norm(grads: list[Tensor], kinds: set[Kind], each: list[Tensor] | None = None) -> Tensor:
    """Return the global 2-norm of gradients in float32 (float64 for float64), also of half-precision ones.

    Args:
        grads: Any shapes; of one device and dtype for a single launch.
        kinds: What :func:`kinds_of` says of them.
        each: Filled with the norm of every gradient, in their order, 0-dim and of the result's device and dtype; None: not
            wanted. They are there anyway: the result is made of them.

    Returns:
        A 0-dim tensor on the device of the first gradient. Infinite when the squares of finite numbers overflow; not finite
        whenever a gradient is not.

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
    """Return the 2-norm of every gradient, for a step that has no use for them itself.

    Args:
        grads: Any shapes, at least one.

    Returns:
        In their order, 0-dim tensors of one device and dtype; none when a gradient is sparse or complex.

    Syncs: none.
    """
    if any(g.layout is not torch.strided or g.is_complex() for g in grads):
        return []
    each: list[Tensor] = []
    total_norm(grads, kinds_of(grads), each)
    return each
