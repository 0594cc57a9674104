"""Taint: the origin of non-finite values, tracked by storage from operation to operation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from .modules import ModuleCall
from .ranges import is_finite, plain

KEPT = 8
"""Births that a tensor remembers at most, the earliest."""


@dataclass(slots=True, eq=False)
class Birth:
    """The operation that made something non-finite; it becomes a ``Break`` after the pass."""

    ordinal: int
    soft: bool
    """Only -Inf, from the number -Inf in the code, as in masks: blamed only if there is nothing else."""
    place: ModuleCall
    facts: dict[str, object]


@dataclass(slots=True, eq=False)
class Origin:
    """Something that was not finite before any operation read it."""

    name: str
    soft: bool
    birth: Birth | None = None
    """The first operation with a non-finite result of it."""


Tags = frozenset[Birth | Origin]
RAW = Origin("uninitialised memory", soft=False)
LITERAL = Origin("", soft=False)
"""A number in the code."""
NOTHING: Tags = frozenset()


class Taint:
    """The non-finite content of storages."""

    def __init__(self) -> None:
        self.table: dict[int, tuple[Tags, int, int]] = {}
        """By storage: its origin; the number of elements and the version of the tensor that was found bad."""

    def of(self, tensor: Tensor) -> Tags:
        """Return the last known origin of a tensor's memory."""
        entry = self.table.get(key_of(tensor))
        return NOTHING if entry is None else entry[0]

    def look(self, tensor: Tensor) -> tuple[Tags, bool]:
        """Return the origin of its memory, and whether exactly these elements are known to be bad."""
        entry = self.table.get(key_of(tensor))
        if entry is None:
            return NOTHING, False
        return entry[0], entry[1] == tensor.numel() and entry[2] == version_of(tensor)

    def mark(self, tensor: Tensor, tags: Iterable[Birth | Origin], *, add: bool = False) -> None:
        """Remember the origin of a tensor; ``add``: beside that of the rest of its memory."""
        key = key_of(tensor)
        both = set(tags) | (self.of(tensor) if add and not is_whole(tensor) else NOTHING)
        bad = tensor.numel() if RAW not in both else -1
        self.table[key] = (earliest(both - {RAW} or both), bad, version_of(tensor))

    def clear(self, tensor: Tensor, *, written: bool = False) -> None:
        """Forget the memory of a fresh or completely overwritten result."""
        if not written or is_whole(tensor):
            self.table.pop(key_of(tensor), None)


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written in place."""
    return -1 if tensor.is_inference() else tensor._version


def key_of(tensor: Tensor) -> int:
    """Return a key that all views of a tensor share, also those that autograd saved."""
    try:
        return tensor.untyped_storage()._cdata
    except RuntimeError:  # sparse tensors and those of some backends have no storage
        return -id(tensor)


def is_whole(tensor: Tensor) -> bool:
    """Say whether a tensor covers all of its memory."""
    try:
        return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()
    except RuntimeError:
        return True


def earliest(tags: Iterable[Birth | Origin]) -> Tags:
    """Return the first few, in the order of blame."""
    return frozenset(sorted(tags, key=_rank)[:KEPT])


def outside(tensor: Tensor, name: str) -> Origin | None:
    """Return a tensor from outside as an origin, soft for a mask of 0 and -Inf; None if it is finite."""
    if is_finite(tensor):
        return None
    values = plain(tensor)
    finite = values.isfinite()
    mask = bool((values[finite] == 0).all()) and bool((values[~finite] == -math.inf).all())
    return Origin(name, soft=mask)


def _rank(tag: Birth | Origin) -> tuple[bool, int]:
    birth = tag.birth if isinstance(tag, Origin) else tag
    return tag.soft, 0 if birth is None else birth.ordinal
