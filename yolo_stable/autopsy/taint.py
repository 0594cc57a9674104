"""Taint: where a value that is not finite comes from, kept per storage and handed on from operation to operation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from .modules import ModuleCall
from .ranges import is_finite, plain

KEPT = 8
"""A tensor remembers at most so many births, the earliest."""


@dataclass(slots=True, eq=False)
class Birth:
    """The operation that made something that is not finite; filled into a ``Break`` when the pass is over."""

    ordinal: int
    soft: bool
    """Only -Inf, and made of the number -Inf in the code, as masks are: blamed when there is nothing else to blame."""
    place: ModuleCall
    facts: dict[str, object]


@dataclass(slots=True, eq=False)
class Origin:
    """Something that was not finite before the first operation read it."""

    name: str
    soft: bool
    birth: Birth | None = None
    """The first operation that made a result of it that is not finite."""


Tags = frozenset[Birth | Origin]
RAW = Origin("uninitialised memory", soft=False)
LITERAL = Origin("", soft=False)
"""A number in the code."""
NOTHING: Tags = frozenset()


class Taint:
    """What the storages hold that is not finite."""

    def __init__(self) -> None:
        self.table: dict[int, tuple[Tags, int, int]] = {}
        """By storage: where it comes from; how many elements the tensor had that was found bad, and its version then."""

    def of(self, tensor: Tensor) -> Tags:
        """Return what a tensor's memory was last known to come from."""
        entry = self.table.get(key_of(tensor))
        return NOTHING if entry is None else entry[0]

    def look(self, tensor: Tensor) -> tuple[Tags, bool]:
        """Return what its memory comes from, and whether these very elements are known to be bad."""
        entry = self.table.get(key_of(tensor))
        if entry is None:
            return NOTHING, False
        return entry[0], entry[1] == tensor.numel() and entry[2] == version_of(tensor)

    def mark(self, tensor: Tensor, tags: Iterable[Birth | Origin], *, add: bool = False) -> None:
        """Remember where a tensor comes from, beside what the rest of its memory does when it is written in part."""
        key = key_of(tensor)
        both = set(tags) | (self.of(tensor) if add and not is_whole(tensor) else NOTHING)
        bad = tensor.numel() if RAW not in both else -1
        self.table[key] = (earliest(both - {RAW} or both), bad, version_of(tensor))

    def clear(self, tensor: Tensor, *, written: bool = False) -> None:
        """Forget what a fresh result's memory held, or one that was written over as a whole."""
        if not written or is_whole(tensor):
            self.table.pop(key_of(tensor), None)


def version_of(tensor: Tensor) -> int:
    """Return how often a tensor was written in place."""
    return -1 if tensor.is_inference() else tensor._version


def key_of(tensor: Tensor) -> int:
    """Return what all views of a tensor share, those that autograd has saved included."""
    try:
        return tensor.untyped_storage()._cdata
    except RuntimeError:  # sparse ones and those of other backends have no storage
        return -id(tensor)


def is_whole(tensor: Tensor) -> bool:
    """Return whether a tensor covers all of its memory."""
    try:
        return tensor.numel() * tensor.element_size() >= tensor.untyped_storage().nbytes()
    except RuntimeError:
        return True


def earliest(tags: Iterable[Birth | Origin]) -> Tags:
    """Return the first few, those that are blamed before the others first."""
    return frozenset(sorted(tags, key=_rank)[:KEPT])


def outside(tensor: Tensor, name: str) -> Origin | None:
    """Return the origin that a tensor from outside is, None when it is finite; a mask of 0 and -Inf is a soft one."""
    if is_finite(tensor):
        return None
    values = plain(tensor)
    finite = values.isfinite()
    mask = bool((values[finite] == 0).all()) and bool((values[~finite] == -math.inf).all())
    return Origin(name, soft=mask)


def _rank(tag: Birth | Origin) -> tuple[bool, int]:
    birth = tag.birth if isinstance(tag, Origin) else tag
    return tag.soft, 0 if birth is None else birth.ordinal
