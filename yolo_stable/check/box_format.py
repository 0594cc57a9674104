"""Box format: whether all boxes would be right as corners or from the top left, instead of centre, width and height."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .finding import DataFinding
from .layout import Layout
from .rules import found
from .scan import Scan

RULE = "box-format"
FEWEST = 20
"""Boxes of a data set that are judged together."""
OVER = 0.2
"""Share of the boxes over the edge as they are read: no tool that writes centres has so many."""
TOGETHER = 0.5
"""Correlation of the first and the third number, and of the second and the fourth: two corners of a box lie near each other,
while the size of an object says nothing of its place."""
_FAR = 0.8
"""Some object must end this far right and down, or all are in one corner, like a clock on a picture."""
_EDGE = 2e-3
_ROUNDING = 1e-3


def check_box_format(layout: Layout, scans: Mapping[str, Scan]) -> Iterator[DataFinding]:
    """Report boxes that would all be right in a format that Ultralytics does not read."""
    if layout.task not in ("detect", "pose"):
        return
    table = np.concatenate([np.zeros((0, 5), np.float32), *(scan.taken.table for scan in scans.values())])
    if len(table) < FEWEST:
        return
    x, y, w, h = table[:, 1:].T
    over = (x - w / 2 < -_EDGE) | (y - h / 2 < -_EDGE) | (x + w / 2 > 1 + _EDGE) | (y + h / 2 > 1 + _EDGE)
    if over.mean() < OVER:
        return
    right, below = x + w, y + h
    if bool(((w > x) & (h > y)).all()) and min(_together(x, w), _together(y, h)) > TOGETHER:
        form = "two corners, x1 y1 x2 y2"
    elif max(right.max(), below.max()) <= 1 + _ROUNDING and min(right.max(), below.max()) >= _FAR:
        form = "the top left corner with width and height"
    else:
        return
    message = f"{int(over.sum())} of {len(table)} boxes reach over the edge, and all of them would lie inside as {form}"
    yield found(RULE, layout.place, message)


def _together(one: np.ndarray, other: np.ndarray) -> float:
    if min(one.std(), other.std()) < _ROUNDING:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])
