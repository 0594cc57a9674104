"""Pose form: whether label rows are boxes with keypoints although the description has no ``kpt_shape``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from .boxes import TOLERANCE

FEWEST, FEWEST_POINTS = 10, 4
"""Rows, and points of each, that are judged where keypoints have no visibility: fewer can be outlines by chance."""
MOST_ROWS = 5000
"""Rows that are read."""
MOST_OUTSIDE = 0.02
"""Share of the rows whose points may leave their box."""
LEAST_FAR = 0.1
"""Share of the rows whose width and height, read as a point, lie far off: in outlines hardly any do."""
_FAR, _FAR_OF_MANY, _MANY = 1.0, 0.25, 8
"""Distance that is far, as a share of the extent of the other points, and that of many points."""
LEAST_FULL = 0.5
"""Share of its box that the points of a usual row span: small outlines span less of what would be their box."""
_MARGIN = 0.1
"""Share of a box's sides by which a keypoint may leave it: boxes often show the visible part only."""


def keypoint_shape(texts: Sequence[str]) -> tuple[int, int] | None:
    """Return the ``kpt_shape`` that label files are written for, or None where they may be something else.

    Examples:
        >>> keypoint_shape(["0 .5 .5 .4 .4 .4 .4 2 .6 .6 1"]), keypoint_shape(["0 .1 .1 .2 .1 .2 .2 .1 .2"])
        ((2, 3), None)
    """
    lines = (line.split() for text in texts for line in text.splitlines())
    rows = list(islice(filter(None, lines), MOST_ROWS))
    columns = len(rows[0]) if rows else 0
    if columns < 7 or any(len(row) != columns for row in rows):
        return None
    try:
        values = np.array(rows, dtype=np.float64)[:, 1:]
    except ValueError:
        return None
    if not np.isfinite(values).all():
        return None
    box, rest = values[:, :4], values[:, 4:]
    centre, size = box[:, :2], box[:, 2:]
    inside = ((centre - size / 2 >= -TOLERANCE) & (centre + size / 2 <= 1 + TOLERANCE) & (size > 0)).all()
    if not inside:
        return None
    if rest.shape[1] > 3 and rest.shape[1] % 3 == 0 and np.isin(rest[:, 2::3], (0, 1, 2)).all():
        points = rest.reshape(len(rest), -1, 3)
        if _enclosed(centre, size, points[..., :2], points[..., 2] > 0):
            return points.shape[1], 3
    if rest.shape[1] % 2 or rest.shape[1] < 2 * FEWEST_POINTS or len(rows) < FEWEST:
        return None
    points = rest.reshape(len(rest), -1, 2)
    shown = (points != 0).any(-1)
    both = np.concatenate([centre[:, None], np.where(shown[..., None], points, centre[:, None])], axis=1)
    low, high = both.min(1), both.max(1)
    reach = (_FAR if points.shape[1] < _MANY else _FAR_OF_MANY) * (high - low)
    far = ((size < low - reach) | (size > high + reach)).any(1)
    full = float(np.median(((high - low) / size).max(1)))
    if far.mean() < LEAST_FAR or full < LEAST_FULL or not _enclosed(centre, size, points, shown):
        return None
    return points.shape[1], 2


def _enclosed(centre: np.ndarray, size: np.ndarray, points: np.ndarray, shown: np.ndarray) -> bool:
    """Say whether the boxes enclose the shown points in nearly all rows, and some are shown."""
    outside = (np.abs(points - centre[:, None]) > (0.5 + _MARGIN) * size[:, None]).any(-1) & shown
    return bool(shown.any() and outside.any(1).mean() <= MOST_OUTSIDE)
