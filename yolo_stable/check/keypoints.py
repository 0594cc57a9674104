"""Keypoint rules: visibility, place, and corners that stand for no label."""

from __future__ import annotations

import numpy as np

from .._shared.text import listed
from .boxes import ROUNDING, TOLERANCE
from .finding import DataFinding, Severity, number
from .label_file import Rows
from .rules import found


def check_keypoints(rows: Rows, keypoints: tuple[int, int], findings: list[DataFinding]) -> np.ndarray:
    """Judge all keypoints, each of 2 numbers (x, y) or 3 (and visibility).

    Returns:
        How many objects show each keypoint: ``(count,)`` int64, as Ultralytics takes them.
    """
    count, size = keypoints
    if not rows.keypoints:
        return np.zeros(count, dtype=np.int64)
    values = np.array(rows.keypoints, dtype=np.float32).reshape(-1, count, size)
    points = values[..., :2]
    dropped = np.asarray(((points > 1 + TOLERANCE) | (points < -TOLERANCE)).any(-1))
    outside = np.asarray(((points > 1 + ROUNDING) | (points < -ROUNDING)).any(-1))
    if size == 3:
        seen = values[..., 2]
        visible = seen != 0
        strange = (seen != 0) & (seen != 1) & (seen != 2)
        outside &= seen > 0
    else:
        strange = np.zeros_like(dropped)
        visible = (points >= 0).all(-1)
        outside &= (points >= 0).all(-1)  # with two numbers a negative one means: not visible
    corner = np.asarray(visible & (points == 0).all(-1))
    for row in np.flatnonzero(corner.any(1)):
        file, which = rows.owners[row], np.flatnonzero(corner[row])
        message = f"keypoint {listed(which)} at 0 0 counts as visible in the corner of the image"
        where = {"line": rows.lines[row], "image": rows.images[file], "points": [(0.0, 0.0)]}
        findings.append(found("keypoint-corner", rows.files[file], message, **where))
    for row, point in zip(*np.nonzero(dropped | outside | strange), strict=True):
        file = rows.owners[row]
        x, y = map(float, points[row, point])
        place = {"line": rows.lines[row], "image": rows.images[file], "points": [(x, y)]}
        if dropped[row, point] or outside[row, point]:
            message = f"keypoint {point} at {number(x)} {number(y)}; allowed: 0 to 1"
            severity = Severity.ERROR if dropped[row, point] else Severity.WARNING
            findings.append(found("keypoint-outside", rows.files[file], message, severity=severity, **place))
        if strange[row, point]:
            visibility = values[row, point, 2]
            severity = Severity.ERROR if visibility < 0 else Severity.WARNING  # Ultralytics leaves the image out
            message = f"visibility of keypoint {point} is {number(visibility)}; allowed: 0, 1 and 2"
            findings.append(found("keypoint-visibility", rows.files[file], message, severity=severity, **place))
    return visible.sum(0, dtype=np.int64)
