"""Detail: whether two alike pictures are one picture, or different ones of one composition.

Blur, noise, light and compression change a whole picture. Another head, another word or another part changes a few places far
more than the rest. So the difference at each point is measured against the usual difference in the same pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from .likeness import likeness, moved, relief, smooth

BAND = 0.2
"""Share of a picture, along one side, that a caption, a stamp or an added strip may fill."""
_MOVES, _ENOUGH = 4, 0.9995
"""Small misfits need a closer fit than likeness."""
_STANDS_OUT = 4.6
"""Times the usual difference and :data:`_NOISE`, from which on a place differs. It does in one of 300 copies of photographs and
in all but 8 of 1,250 pairs of heads, scans, screens and rigs."""
_FARTHEST = 9.0
"""Difference of a place that no copy has: a strong blur reaches 8, and 13 where two heads differ all over."""
_NOISE = 0.4
"""Grey levels that rounding and compression change."""
_MISFIT = 0.25
"""Pixels by which edges may still lie apart."""
_PLACES = 4
"""Points that differ most: the least of them counts."""
_WIDE, _NARROW = 21, 9
"""Pixels of the surroundings that each point is compared with. Wide ones show faces and parts that differ; of narrow ones a white
strip changes no more than it fills."""
_AGREEING = 0.6
"""Share of a picture in which fine detail has to agree where a band differs: copies with a caption have 0.74, other heads 0.4."""
_FINE = 5
"""Pixels of the surroundings of fine detail."""
_ALIKE = 0.8
"""Correlation from which on fine detail agrees."""
_EDGE = 2
"""Pixels at the edges that are skipped: half of their surroundings lies outside."""


class Kinship(IntEnum):
    """How two alike pictures are related."""

    COMPOSITION = 0
    """Different pictures, or nobody can tell."""
    BANDED = 1
    """One picture but for a band along one side, as with a caption; or different pictures that differ only there."""
    SAME = 2
    """One picture."""


@dataclass(frozen=True, slots=True)
class Kinships:
    """How the pictures of each pair are related."""

    kinds: np.ndarray
    """A :class:`Kinship` for each: ``(P,)`` int64."""
    apart: np.ndarray
    """Difference of the most different places, against noise and steepness: ``(P,)``."""
    shift: np.ndarray
    """Brings the first closely onto the second: ``(P, 4)``."""


def kinships(one: np.ndarray, other: np.ndarray, start: np.ndarray) -> Kinships:
    """Tell how pictures are related, pair by pair.

    Args:
        one: Grey: ``(P, 1, S, S)``, 0 to 255.
        other: The same.
        start: Shift that brings the first about onto the second: ``(P, 4)``.
    """
    _, shift = likeness(one, other, start, moves=_MOVES, enough=_ENOUGH)
    first, second = moved(one.astype(np.float32), shift)[:, 0], other[:, 0].astype(np.float32)
    even, most = _most(_apart(first, second, _WIDE))
    narrow = _apart(first, second, _NARROW)
    even &= _most(narrow)[0]
    kinds = np.where(even, Kinship.SAME, Kinship.COMPOSITION)
    band = round(BAND * narrow.shape[-1])
    for rest in (narrow[:, band:], narrow[:, :-band], narrow[..., band:], narrow[..., :-band]):
        odd = np.flatnonzero(kinds == Kinship.COMPOSITION)
        kinds[odd[_most(rest[odd])[0]]] = Kinship.BANDED
    banded = np.flatnonzero(kinds == Kinship.BANDED)
    kinds[banded[_agreeing(first[banded], second[banded]) < _AGREEING]] = Kinship.COMPOSITION
    return Kinships(kinds, most, shift)


def _apart(first: np.ndarray, second: np.ndarray, width: int) -> np.ndarray:
    """Return the difference of each point, against noise and what a slight misfit does to edges."""
    first, second = relief(first, width), relief(second, width)
    first *= ((first * second).sum((1, 2)) / np.maximum((first**2).sum((1, 2)), 1))[:, None, None]
    steepest = np.maximum(_steepness(first), _steepness(second))
    apart = np.sqrt(smooth((second - first) ** 2, 3) / (1 + _MISFIT**2 * smooth(steepest, 3)))
    return apart[:, _EDGE:-_EDGE, _EDGE:-_EDGE]


def _agreeing(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the share of each pair of pictures with the same fine detail in both."""
    first, second = relief(first, _FINE), relief(second, _FINE)
    ours, theirs = smooth(first**2, _FINE), smooth(second**2, _FINE)
    alike = smooth(first * second, _FINE) > _ALIKE * np.sqrt((ours + _NOISE) * (theirs + _NOISE))
    return (alike & (np.minimum(ours, theirs) > 1)).mean((1, 2))


def _most(apart: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return in which of ``(P, H, W)`` no place stands out, and the difference of the most different places."""
    flat = apart.reshape(len(apart), apart.shape[1] * apart.shape[2])
    middle, last = flat.shape[1] // 2, flat.shape[1] - _PLACES
    ordered = np.partition(flat, (middle, last), axis=1)
    limit = np.minimum(_STANDS_OUT * (ordered[:, middle] + _NOISE), _FARTHEST)
    return ordered[:, last] <= limit, ordered[:, last]


def _steepness(pictures: np.ndarray) -> np.ndarray:
    down, right = np.gradient(pictures, axis=(-2, -1))
    return down**2 + right**2
