"""The four numbers that say how far a tensor is from its reference."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Errors:
    """The error of one tensor against float64 on the CPU; how each is computed stands in ``metrics.py``."""

    rms: float
    """Norm of the error over the norm of the reference: sees a change of precision, not a single wrong element."""
    q: float | None
    """Largest error of an element in unit roundoffs of its terms: sees a single wrong element. None: not defined here."""
    maxrel: float
    """Largest error of an element over the largest element of the reference."""
    nf: int
    """Elements that are NaN, +inf or -inf where the reference is another of these or finite, or the reverse."""
