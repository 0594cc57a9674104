"""How far a tensor is from its reference: four numbers, and the distance of two sketches. Needs no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """The error of one tensor against float64 on the CPU; ``metrics.py`` computes it."""

    rms: float
    """Norm of the error over the norm of the reference: sees a change of precision, not a single wrong element."""
    q: float | None
    """Largest error of an element in unit roundoffs of its terms: sees a single wrong element. None: not defined here."""
    maxrel: float
    """Largest error of an element over the largest element of the reference."""
    nf: int
    """Elements that are NaN, +inf or -inf where the reference is another of these or finite, or the reverse."""


def distance(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the estimate of ``||a - b||`` that the sketches of two tensors give; infinite where there can be none.

    Examples:
        >>> distance((1.0,) * 16, (4.0,) * 16)
        3.0
    """
    if len(a) != len(b):
        return math.inf
    return math.sqrt(sum((u - v) ** 2 for u, v in zip(a, b, strict=True)) / max(len(a), 1))


def relative(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the distance of two sketches over the size of the first; 0 where one of them is missing."""
    size = math.sqrt(sum(v * v for v in a) / len(a)) if a and b else 0.0
    return distance(a, b) / size if size > 0 else 0.0
