"""Polygon rules: what is wrong with the outlines of objects."""

from __future__ import annotations

import numpy as np

from .boxes import ROUNDING, TOLERANCE
from .finding import Finding, Severity, number
from .label_file import Rows
from .rules import found

MOST_PAIRS = 10**8
"""Pairs of edges of a chunk of images that are looked at, a few seconds; a hundred times what careful outlines have. Whether the
outlines beyond cross themselves is not said."""
_BLOCK = 512
"""Edges that are compared with all others in one go."""


def check_polygons(rows: Rows, findings: list[Finding]) -> None:
    """Judge all outlines.

    Args:
        rows: Rows of many files.
        findings: What is wrong is appended here.
    """
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
            message = f"a point at {number(low)}; allowed are 0 to 1"
            findings.append(found("coordinate-negative", path, message, severity=Severity.WARNING, **place))
        elif accepted and (high := points.max()) > 1 + ROUNDING:
            message = f"a point at {number(high)}; allowed are 0 to 1"
            findings.append(found("coordinate-above-one", path, message, severity=Severity.WARNING, **place))
        distinct = len(np.unique(points, axis=0))
        if distinct < 3:
            message = f"{distinct} different points; an outline has 3 or more"
            findings.append(found("polygon-zero-area", path, message, **place))
        elif (left := left - len(points) ** 2) >= 0 and crosses_itself(points):
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


def crosses_itself(points: np.ndarray) -> bool:
    """Say whether two edges of a closed outline cross; those that only touch, or lie upon each other, do not.

    Args:
        points: ``(K, 2)``.

    Examples:
        >>> crosses_itself(np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]]))
        False
        >>> crosses_itself(np.array([[0, 0], [1, 1], [1, 0], [0, 1.0]]))
        True
    """
    start, end = points, np.roll(points, -1, axis=0)
    for at in range(0, len(points), _BLOCK):
        a, b = start[at : at + _BLOCK, None], end[at : at + _BLOCK, None]
        one = _side(a, b, start[None]) * _side(a, b, end[None])
        other = _side(start[None], end[None], a) * _side(start[None], end[None], b)
        if ((one < 0) & (other < 0)).any():
            return True
    return False


def _side(a: np.ndarray, b: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return on which side of the line from a to b a point lies: -1, 0 or 1."""
    turn = (b[..., 0] - a[..., 0]) * (p[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (p[..., 0] - a[..., 0])
    return np.where(np.abs(turn) < 1e-12, 0, np.sign(turn))
