"""Pose form: whether label rows are boxes with keypoints although the description has no ``kpt_shape``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .boxes import TOLERANCE

FEWEST = 10
"""Rows that are judged where keypoints have no visibility: an outline can look like a pose by chance, many cannot."""
MOST_OUTSIDE = 0.02
"""Share of the rows whose points may leave their box."""
LEAST_FAR = 0.25
"""Share of the rows whose width and height, read as a point, lie far off the others: in an outline none do."""
_MARGIN = 0.1
"""Of a box's sides, by which a keypoint may leave it: boxes are often drawn around the visible part."""


def keypoint_shape(texts: Sequence[str]) -> tuple[int, int] | None:
    """Return the ``kpt_shape`` that label files are written for, or None where they may be something else.

    Examples:
        >>> keypoint_shape(["0 .5 .5 .4 .4 .4 .4 2 .6 .6 1"]), keypoint_shape(["0 .1 .1 .2 .1 .2 .2 .1 .2"])
        ((2, 3), None)
    """
    rows = [line.split() for text in texts for line in text.splitlines() if line.strip()]
    columns = len(rows[0]) if rows else 0
    if columns < 7 or any(len(row) != columns for row in rows):
        return None
    try:
        values = np.array(rows, dtype=np.float64)[:, 1:]
    except ValueError:
        return None
    box, rest = values[:, :4], values[:, 4:]
    centre, size = box[:, :2], box[:, 2:]
    inside = ((centre - size / 2 >= -TOLERANCE) & (centre + size / 2 <= 1 + TOLERANCE) & (size > 0)).all()
    if not inside:  # NaN is not
        return None
    if rest.shape[1] > 3 and rest.shape[1] % 3 == 0 and np.isin(rest[:, 2::3], (0, 1, 2)).all():
        points = rest.reshape(len(rest), -1, 3)
        if _enclosed(centre, size, points[..., :2], points[..., 2] > 0):
            return points.shape[1], 3
    if rest.shape[1] % 2 or len(rows) < FEWEST:
        return None
    points = rest.reshape(len(rest), -1, 2)
    both = np.concatenate([centre[:, None], points], axis=1)
    low, high = both.min(1), both.max(1)
    far = ((size < 2 * low - high) | (size > 2 * high - low)).any(1)
    shown = (points != 0).any(-1)
    if far.mean() < LEAST_FAR or not _enclosed(centre, size, points, shown):
        return None
    return points.shape[1], 2


def _enclosed(centre: np.ndarray, size: np.ndarray, points: np.ndarray, shown: np.ndarray) -> bool:
    """Say whether the boxes enclose the shown points in nearly all rows, and some are shown."""
    outside = (np.abs(points - centre[:, None]) > (0.5 + _MARGIN) * size[:, None]).any(-1) & shown
    return bool(shown.any() and outside.any(1).mean() <= MOST_OUTSIDE)
