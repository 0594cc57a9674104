"""Overlaps: two labels of one image that lie so closely upon each other that they mean one object."""

from __future__ import annotations

import numpy as np

from .finding import DataFinding, Severity
from .label_file import Rows, corners
from .rules import found

MOST_STEPS = 256
"""Most boxes to the right that a box is compared with: more would have to share nearly one column."""
_GRID = 64
"""Cells a side by which two outlines are compared."""


def check_overlaps(rows: Rows, limit: float, findings: list[DataFinding]) -> None:
    """Find objects that were labelled twice with a slight difference; exact copies have their own rules.

    Two of one class are a fault that tools make when they merge labels. Two of different classes, such as person and man, may
    be meant and are only worth knowing.
    """
    for a, b, overlap in _pairs(rows, limit):
        same = rows.boxes[a][0] == rows.boxes[b][0]
        outlines = a in rows.polygons, b in rows.polygons
        if any(outlines):
            if not (same and all(outlines)):
                continue
            overlap = outline_overlap(rows.polygons[a], rows.polygons[b])
            if overlap <= limit:
                continue
        message = f"lies on line {rows.lines[a]}: intersection over union is {overlap:.3f}; two objects have {limit:g} at most"
        file = rows.owners[b]
        points = [(float(x), float(y)) for x, y in rows.polygons[b]] if outlines[1] else corners(*rows.boxes[b][1:5])
        findings.append(
            found(
                "box-near-duplicate",
                rows.files[file],
                message if same else f"{message}. The classes differ",
                line=rows.lines[b],
                severity=None if same else Severity.INFO,
                image=rows.images[file],
                points=points,
            )
        )


def _pairs(rows: Rows, limit: float) -> list[tuple[int, int, float]]:
    """Return the first partner that each row overlaps with: ``(earlier row, later row, IoU)``, in order."""
    if len(rows.boxes) < 2:
        return []
    table = np.array(rows.boxes, dtype=np.float64)
    owners = np.array(rows.owners)
    usable = (table[:, 3] > 0) & (table[:, 4] > 0)
    order = np.flatnonzero(usable)
    order = order[np.lexsort((table[order, 1], owners[order]))]
    x, y, w, h = table[order, 1:5].T
    left, right, top, bottom, area = x - w / 2, x + w / 2, y - h / 2, y + h / 2, w * h
    reach = w * (1 - limit) / (2 * max(limit, 1e-3)) + 1e-9  # of centres of boxes that overlap so far
    first: dict[int, tuple[int, float]] = {}
    for step in range(1, min(MOST_STEPS, len(order))):
        close = np.flatnonzero(
            (owners[order[step:]] == owners[order[:-step]]) & (x[step:] - x[:-step] <= reach[:-step])
        )
        if not len(close):
            break
        other = close + step
        across = np.minimum(right[close], right[other]) - np.maximum(left[close], left[other])
        down = np.minimum(bottom[close], bottom[other]) - np.maximum(top[close], top[other])
        shared = across.clip(0) * down.clip(0)
        overlap = shared / (area[close] + area[other] - shared)
        same = (table[order[close], 1:] == table[order[other], 1:]).all(1)
        for i, j, value in zip(*(part[(overlap > limit) & ~same] for part in (close, other, overlap)), strict=True):
            a, b = sorted((int(order[i]), int(order[j])))
            first[b] = min(first.get(b, (a, float(value))), (a, float(value)))
    return [(a, b, overlap) for b, (a, overlap) in sorted(first.items())]


def outline_overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return the intersection over union of two outlines ``(K, 2)``, to about a hundredth.

    Examples:
        >>> square = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
        >>> outline_overlap(square, square[::-1])
        1.0
    """
    import cv2

    both = np.concatenate([one, other])
    low, size = both.min(0), np.maximum(np.ptp(both, axis=0), 1e-9)
    masks = []
    for points in (one, other):
        mask = np.zeros((_GRID, _GRID), np.uint8)
        cv2.fillPoly(mask, [np.rint((points - low) / size * (_GRID - 1)).astype(np.int32)], 1)
        masks.append(mask.astype(bool))
    return float((masks[0] & masks[1]).sum() / max((masks[0] | masks[1]).sum(), 1))
