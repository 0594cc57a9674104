"""Polygon rules: outlines that leave the image, cross themselves or enclose nothing."""

from __future__ import annotations

import numpy as np

from .boxes import ROUNDING, TOLERANCE
from .finding import DataFinding, Severity, number
from .label_file import Rows
from .rules import found

MOST_PAIRS = 10**8
"""Pairs of edges of a chunk of images that are looked at, a few seconds. Careful outlines of thousands of points take tens of
thousands each, as most edges are told apart by columns. Whether the outlines beyond cross themselves is not said."""


def check_polygons(rows: Rows, findings: list[DataFinding]) -> None:
    """Judge all outlines."""
    left = MOST_PAIRS
    for row, points in rows.polygons.items():
        place = {
            "line": rows.lines[row],
            "image": rows.images[rows.owners[row]],
            "points": [(float(x), float(y)) for x, y in points],
        }
        path = rows.files[rows.owners[row]]
        box = np.array(rows.boxes[row][1:])
        accepted = (box <= 1 + TOLERANCE).all() and (box >= -TOLERANCE).all()  # else the box's finding says it
        if accepted and (low := points.min()) < -ROUNDING:
            message = f"a point at {number(low)}; allowed: 0 to 1"
            findings.append(found("coordinate-negative", path, message, severity=Severity.WARNING, **place))
        elif accepted and (high := points.max()) > 1 + ROUNDING:
            message = f"a point at {number(high)}; allowed: 0 to 1"
            findings.append(found("coordinate-above-one", path, message, severity=Severity.WARNING, **place))
        distinct = len(np.unique(points, axis=0))
        if distinct < 3:
            message = f"{distinct} different points; an outline has 3 or more"
            findings.append(found("polygon-zero-area", path, message, **place))
            continue
        crosses, looked_at = crossing(points, left)
        left -= looked_at
        if crosses:
            findings.append(found("polygon-crossing", path, "two edges of the outline cross; none may", **place))
        elif area(points) <= 1e-12:
            findings.append(found("polygon-zero-area", path, "all points lie on a line", **place))


def area(points: np.ndarray) -> float:
    """Return what an outline encloses: ``(K, 2)``, in units of its coordinates.

    Examples:
        >>> area(np.array([[0, 0], [1, 0], [1, 1], [0, 1]]))
        1.0
    """
    x, y = points.T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def crossing(points: np.ndarray, most: int = MOST_PAIRS) -> tuple[bool, int]:
    """Say whether two edges of a closed outline ``(K, 2)`` cross; edges that touch or lie upon each other do not.

    Returns:
        Whether two of the edges that were looked at cross, and how many pairs were: ``most`` or fewer.

    Examples:
        >>> crossing(np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]]))[0]
        False
        >>> crossing(np.array([[0, 0], [1, 1], [1, 0], [0, 1.0]]))[0]
        True
    """
    start, end = points, np.roll(points, -1, axis=0)
    has_length = (start != end).any(axis=1)  # a point that is there twice crosses nothing
    start, end = start[has_length], end[has_length]
    order = np.argsort(np.minimum(start, end)[:, 0], kind="stable")  # by their left ends
    start, end = start[order], end[order]
    low, high = np.minimum(start, end), np.maximum(start, end)
    pairs = 0
    for step in range(1, len(start)):
        pairs += len(start) - step
        if pairs > most:
            break
        one = np.flatnonzero(low[step:, 0] <= high[:-step, 0])  # those whose columns overlap
        if not len(one):
            break
        other = one + step
        close = (low[one, 1] <= high[other, 1]) & (low[other, 1] <= high[one, 1])
        one, other = one[close], other[close]
        a, b, c, d = start[one], end[one], start[other], end[other]
        if ((_side(a, b, c) * _side(a, b, d) < 0) & (_side(c, d, a) * _side(c, d, b) < 0)).any():
            return True, pairs
    return False, pairs


def _side(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return on which side of the line from a to b a point lies: -1, 0 or 1."""
    turn = (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])
    return np.where(np.abs(turn) < 1e-12, 0, np.sign(turn))
