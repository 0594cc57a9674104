"""Likeness: the share of one picture that another one explains when it may be moved, stretched and lit a little."""

from __future__ import annotations

from functools import cache

import numpy as np

TRIM = 0.25
"""Share of the pixels that may differ: a caption, a stamp, an added strip."""
_FARTHEST = 0.1
"""Share of a side by which a picture is moved at a time."""
_LEAST = 1.0
"""Grey levels by which the compared parts must vary: flat ones cannot be alike."""


def likeness(
    one: np.ndarray, other: np.ndarray, start: np.ndarray | None = None, *, moves: int = 2, enough: float = 0.98
) -> tuple[np.ndarray, np.ndarray]:
    """Compare pictures pair by pair: ``(P, C, S, S)``, 0 to 255.

    Each point is compared by its difference from its surroundings, which light and shade across a picture do not change. A
    shift, a stretch in both directions and a gain, found by least squares, bring the first picture onto the second; the worst
    :data:`TRIM` of the pixels are left out.

    Args:
        one: The first pictures.
        other: The second ones.
        start: Shift to begin with; None: none.
        moves: Times that the first is moved towards the second.
        enough: Likeness at which it is moved no more.

    Returns:
        ``(P,)`` float64, 1 for the same picture and around 0 for strangers; and the shift, for :func:`moved`.
    """
    first, target = one.astype(np.float32), relief(other.astype(np.float32), one.shape[-1] // 3)
    side = first.shape[-1]
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    shift = np.zeros((len(first), 4), np.float32) if start is None else start.copy()
    alike, best = np.zeros(len(first)), shift.copy()
    left = np.arange(len(first))
    for _ in range(moves + 1):
        here = relief(moved(first[left], shift[left]), side // 3)
        down, right = np.gradient(here, axis=(-2, -1))
        basis = np.stack([here, right, down, right * ramp, down * ramp[:, None]], 1).reshape(len(left), 5, -1)
        gain, share = _fit(basis, target[left].reshape(len(left), -1), first.shape[1])
        better = share > alike[left]
        alike[left[better]], best[left[better]] = share[better], shift[left[better]]
        more = alike[left] < enough
        left, gain = left[more], gain[more]
        if not len(left):
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.nan_to_num(gain[:, 1:] / gain[:, :1]) / side
        shift[left] += np.clip(step, -_FARTHEST, _FARTHEST).astype(np.float32)
    return alike, best


def _fit(basis: np.ndarray, target: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best weights ``(P, 5)`` and the share of the target that they explain, without the worst pixels."""
    pairs, size = target.shape
    weight = np.ones_like(target)
    ridge = 1e-2 * np.eye(basis.shape[1])
    for last in (False, True):
        weighed = basis * weight[:, None]
        products = (weighed @ basis.transpose(0, 2, 1)).astype(np.float64) + ridge
        best = np.linalg.solve(products, (weighed @ target[..., None]).astype(np.float64))
        wrong = (target - (best.astype(np.float32).transpose(0, 2, 1) @ basis)[:, 0]) ** 2
        if not last:
            pixels = wrong.reshape(pairs, channels, -1).sum(1)
            keep = int(pixels.shape[1] * (1 - TRIM))
            kept = pixels <= np.partition(pixels, keep - 1, axis=1)[:, keep - 1 : keep]
            weight = np.tile(kept, channels).astype(np.float32)
    whole = (target**2 * weight).sum(1, dtype=np.float64)
    share = 1 - (wrong * weight).sum(1, dtype=np.float64) / np.maximum(whole, 1e-6)
    share[(best[:, 0, 0] <= 0) | (whole <= _LEAST * size)] = 0
    return best[..., 0], share


def relief(pictures: np.ndarray, width: int) -> np.ndarray:
    """Return how each point differs from the mean of its surroundings, ``width`` pixels wide."""
    return pictures - smooth(pictures, width)


def smooth(pictures: np.ndarray, width: int) -> np.ndarray:
    """Return means over squares, ``width`` pixels wide or one more when that is even; the edges go on outside."""
    means = _means(pictures.shape[-1], width // 2)
    return means @ pictures @ means.T


@cache
def _means(side: int, reach: int) -> np.ndarray:
    """Return what takes means over ``2 * reach + 1`` points of ``side``: ``(side, side)`` float32."""
    means = np.zeros((side, side), np.float32)
    for step in range(-reach, reach + 1):
        np.add.at(means, (np.arange(side), np.clip(np.arange(side) + step, 0, side - 1)), 1)
    return means / (2 * reach + 1)


def moved(pictures: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return what lies at a shift from each point of ``(P, C, S, S)``, between four pixels.

    The shift ``(P, 4)``, in shares of a side, goes right and down, and right and down growing from minus to plus one.
    """
    if not shift.any():
        return pictures
    side = pictures.shape[-1]
    points, ramp = np.arange(side, dtype=np.float32), np.linspace(-1, 1, side, dtype=np.float32)
    x = np.clip(points + side * (shift[:, :1] + shift[:, 2:3] * ramp), 0, side - 1)
    y = np.clip(points + side * (shift[:, 1:2] + shift[:, 3:4] * ramp), 0, side - 1)
    return _between(_between(pictures, x).swapaxes(-1, -2), y).swapaxes(-1, -2)


def _between(pictures: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return values between pixels of the last axis, at ``(P, S)``."""
    low = np.minimum(at.astype(np.int64), pictures.shape[-1] - 2)
    part = (at - low)[:, None, None]
    places = np.broadcast_to(low[:, None, None], pictures.shape)
    left, right = (np.take_along_axis(pictures, places + step, axis=-1) for step in (0, 1))
    return left + (right - left) * part
