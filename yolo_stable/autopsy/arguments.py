"""Arguments of an operation: what it read, and copies of what it overwrote."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .kinds import BOUNDED, OperationKind
from .ranges import dtype_name, is_finite
from .taint import LITERAL, Birth, Origin, Taint, outside

_KEEP = 1 << 20
"""Elements of an overwritten argument up to which a copy is kept."""


@dataclass(slots=True)
class ArgumentsBefore:
    """The arguments of an operation before it overwrote some of them."""

    args: list[Any]
    kwargs: dict[str, Any]
    bad: set[int] = field(default_factory=set)
    """Ids of the written arguments that were not finite."""
    lost: set[int] = field(default_factory=set)
    """Ids of those without a copy."""


def keep(taint: Taint, kind: OperationKind, args: Any, kwargs: Any) -> ArgumentsBefore | None:
    """Copy what an operation reads and is about to overwrite, where that is cheap."""
    if kind.hidden and not args[5]:
        return ArgumentsBefore(args, kwargs)
    kept = ArgumentsBefore(list(args), dict(kwargs))
    for write in kind.writes:
        held: Any = kept.kwargs if isinstance(write.position, str) else kept.args
        whole = _get(held, write.position)
        for tensor in whole if isinstance(whole, (list, tuple)) else [whole]:
            if not isinstance(tensor, Tensor) or not write.read:
                continue
            if taint.table and taint.of(tensor) and not fine(tensor):
                kept.bad.add(id(tensor))
            if kind.name in BOUNDED or tensor.numel() > _KEEP or tensor is not whole:
                kept.lost.add(id(tensor))
        tensor = whole
        if not isinstance(tensor, Tensor) or not write.read or id(tensor) in kept.lost:
            continue
        copy = tensor.detach().clone()
        if id(tensor) in kept.bad:
            taint.mark(copy, taint.of(tensor))
        elif taint.table:
            taint.clear(copy)  # its memory may have held something else
        held[write.position] = copy
    return kept


def origins(
    taint: Taint, kind: OperationKind, args: Any, kwargs: Any, before: ArgumentsBefore | None
) -> tuple[set[Birth | Origin], bool]:
    """Return where non-finite inputs come from, and whether a number in the code is not finite."""
    tags: set[Birth | Origin] = set()
    read = tensors_read(kind, args, kwargs, before)
    unknown = []
    for _, tensor, still in read:
        known, sure = taint.look(tensor)
        if not known:
            unknown.append((tensor, still))
        elif sure or (not fine(tensor) if still or before is None else id(tensor) in before.bad):
            tags |= known
    literal = LITERAL in tags
    tags.discard(LITERAL)
    if any(not tag.soft for tag in tags):
        return tags, literal  # all results were checked: what is not in the table is finite
    numbers = (a for a in tree_leaves((args, kwargs)) if isinstance(a, float))
    literal = literal or not all(map(math.isfinite, numbers))
    for tensor, still in unknown:
        if not still or fine(tensor):
            continue
        shape = "x".join(map(str, tensor.shape)) or "scalar"
        origin = outside(tensor, f"a tensor from outside, {shape} {dtype_name(tensor.dtype)}")
        if origin is not None:
            taint.mark(tensor, {origin})
            tags.add(origin)
    return tags, literal


def tensors_read(
    kind: OperationKind, args: Any, kwargs: Any, before: ArgumentsBefore | None
) -> list[tuple[str, Tensor, bool]]:
    """Return name and tensor of what an operation read, and whether it still holds that."""
    over = {id(_get(kwargs if isinstance(w.position, str) else args, w.position)) for w in kind.writes if not w.read}
    if before is not None:
        args, kwargs = before.args, before.kwargs
    named = [(kind.arguments[i] if i < len(kind.arguments) else str(i), a) for i, a in enumerate(args)]
    read = []
    for name, value in [*named, *kwargs.items()]:
        members = value if isinstance(value, (list, tuple)) else [value]
        for i, member in enumerate(members):
            if type(member) not in (Tensor, nn.Parameter) or id(member) in over:
                continue
            if member.is_floating_point() or member.is_complex():
                label = f"{name}.{i}" if member is not value else name
                read.append((label, member, before is None or id(member) not in before.lost))
    return read


def fine(tensor: Tensor) -> bool:
    """Return whether a tensor is finite; one that cannot be asked, or has no values, counts as finite."""
    try:
        return is_finite(tensor)
    except (RuntimeError, TypeError):
        return True


def _get(held: Sequence[Any] | Mapping[str, Any], position: Any) -> Any:
    if isinstance(held, Mapping):
        return held.get(position)
    return held[position] if position < len(held) else None
