"""Likeness: the share of one picture that another one explains when it may be moved, stretched and lit a little."""

from __future__ import annotations

import numpy as np

TRIM = 0.25
"""Share of the pixels that may be different altogether: a caption, a stamp, a strip that was added."""
_MOVES = 2
"""Times that the one picture is moved towards the other."""
_ENOUGH = 0.98
"""Likeness at which a picture is not moved any more."""
_FARTHEST = 0.1
"""Of a side, by which it may be moved."""
_LEAST = 1.0
"""Grey levels in which the compared parts must vary: in flat ones there is nothing that could be alike."""


def likeness(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compare pictures pair by pair.

    What is compared is how each point differs from its surroundings, which light and shade across a picture do not change. The
    first picture is brought onto the second by a shift, a stretch in both directions and a gain, found by least squares; the
    worst :data:`TRIM` of the pixels are then left out.

    Args:
        one: ``(P, C, S, S)``, 0 to 255.
        other: The same.

    Returns:
        ``(P,)`` float64: 1 for the same picture, around 0 for pictures that have nothing in common.
    """
    moved, target = one.astype(np.float32), _relief(other.astype(np.float32))
    side = moved.shape[-1]
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    alike = np.zeros(len(moved))
    left = np.arange(len(moved))
    for _ in range(_MOVES + 1):
        relief = _relief(moved)
        down, right = np.gradient(relief, axis=(-2, -1))
        basis = np.stack([relief, right, down, right * ramp, down * ramp[:, None]], -1).reshape(len(left), -1, 5)
        gain, share = _fit(basis, target[left].reshape(len(left), -1), moved.shape[1])
        alike[left] = np.maximum(alike[left], share)
        more = alike[left] < _ENOUGH
        if not more.any():
            break
        left, gain, moved = left[more], gain[more], moved[more]
        with np.errstate(divide="ignore", invalid="ignore"):
            shift = np.nan_to_num(gain[:, 1:] / gain[:, :1])
        shift = np.clip(shift, -_FARTHEST * side, _FARTHEST * side).astype(np.float32)
        moved = _moved(moved, shift, ramp)
    return alike


def _fit(basis: np.ndarray, target: np.ndarray, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the best weights ``(P, 5)``, and the share of the target that they explain, both without the worst pixels."""
    pairs, size = target.shape
    weight = np.ones_like(target)
    ridge = 1e-2 * np.eye(basis.shape[-1])
    for last in (False, True):
        weighed = (basis * weight[..., None]).transpose(0, 2, 1)
        best = np.linalg.solve(
            (weighed @ basis).astype(np.float64) + ridge, (weighed @ target[..., None]).astype(np.float64)
        )
        wrong = (target - (basis @ best.astype(np.float32))[..., 0]) ** 2
        if not last:
            pixels = wrong.reshape(pairs, channels, -1).sum(1)
            keep = int(pixels.shape[1] * (1 - TRIM))
            kept = pixels <= np.partition(pixels, keep - 1, axis=1)[:, keep - 1 : keep]
            weight = np.tile(kept, channels).astype(np.float32)
    whole = (target**2 * weight).sum(1, dtype=np.float64)
    share = 1 - (wrong * weight).sum(1, dtype=np.float64) / np.maximum(whole, 1e-6)
    share[(best[:, 0, 0] <= 0) | (whole <= _LEAST * size)] = 0
    return best[..., 0], share


def _relief(pictures: np.ndarray) -> np.ndarray:
    """Return how each point differs from the mean of its surroundings, a third of a side wide."""
    width = pictures.shape[-1] // 3 | 1
    return pictures - _smooth(_smooth(pictures, width).swapaxes(-1, -2), width).swapaxes(-1, -2)


def _smooth(pictures: np.ndarray, width: int) -> np.ndarray:
    """Return running means along the last axis; beyond its ends the outermost values go on."""
    edges = [(0, 0)] * (pictures.ndim - 1) + [(width // 2 + 1, width // 2)]
    sums = np.cumsum(np.pad(pictures, edges, mode="edge"), axis=-1, dtype=np.float64)
    return ((sums[..., width:] - sums[..., :-width]) / width).astype(np.float32)


def _moved(pictures: np.ndarray, shift: np.ndarray, ramp: np.ndarray) -> np.ndarray:
    """Return what lies at a shift ``(P, 4)`` (right, down, and growing with them) from each point, between four pixels."""
    side = pictures.shape[-1]
    points = np.arange(side, dtype=np.float32)
    x = np.clip(points + shift[:, :1] + shift[:, 2:3] * ramp, 0, side - 1)
    y = np.clip(points + shift[:, 1:2] + shift[:, 3:4] * ramp, 0, side - 1)
    return _between(_between(pictures, x).swapaxes(-1, -2), y).swapaxes(-1, -2)


def _between(pictures: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return values between pixels of the last axis, at ``(P, S)``."""
    low = np.minimum(at.astype(np.int64), pictures.shape[-1] - 2)
    part = (at - low)[:, None, None]
    places = np.broadcast_to(low[:, None, None], pictures.shape)
    left, right = (np.take_along_axis(pictures, places + step, axis=-1) for step in (0, 1))
    return left + (right - left) * part
