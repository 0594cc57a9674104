"""Box rules: classes, coordinates and sizes, judged for many files at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .._shared.text import listed
from .finding import DataFinding, Severity, number
from .label_file import Rows, corners
from .rules import found

TOLERANCE = 0.01
"""Ultralytics' tolerance for coordinates outside of 0 to 1."""
ROUNDING = 1e-6
"""Distance from 0 or 1 that comes from few digits and is no finding."""


def check_boxes(
    rows: Rows, classes: Sequence[int], imgsz: int, limits: Mapping[str, float], findings: list[DataFinding]
) -> np.ndarray:
    """Judge all boxes.

    Args:
        rows: Rows of many files.
        classes: Ids, ascending; none: not known, and none is wrong.
        imgsz: Longest side in pixels to which training scales images.
        limits: By rule: ``box-large`` and ``box-aspect``.
        findings: Takes what is wrong.

    Returns:
        Objects of each class, without those that Ultralytics refuses: ``(len(classes),)`` int64.
    """
    if not rows.boxes:
        return np.zeros(len(classes), dtype=np.int64)
    ids = np.array(classes, dtype=np.float32)
    table = np.array(rows.boxes, dtype=np.float32)  # as Ultralytics compares them
    cls, box = table[:, 0], table[:, 1:]
    x, y, w, h = box.T
    width, height = np.array(rows.sizes, dtype=np.float32)[rows.owners].T
    known = width > 0

    def report(mask: np.ndarray, rule: str, message: Callable[[int], str], severity: Severity | None = None) -> None:
        for row in np.flatnonzero(mask):
            file = rows.owners[row]
            polygon = rows.polygons.get(int(row))
            points = corners(*map(float, box[row])) if polygon is None else [(float(a), float(b)) for a, b in polygon]
            findings.append(
                found(
                    rule,
                    rows.files[file],
                    message(int(row)),
                    line=rows.lines[row],
                    severity=severity,
                    image=rows.images[file],
                    points=points,
                )
            )

    fraction = cls % 1 != 0
    outside = ~np.isin(cls, ids) & ~fraction & (len(ids) > 0)
    gaps = list(classes) != list(range(len(classes)))
    allowed = listed(classes, 6) if gaps else f"0 to {len(classes) - 1}"
    report(fraction, "class-fraction", lambda i: f"class {number(cls[i])}; expected: a whole number")
    report(outside, "class-range", lambda i: f"class {number(cls[i])}; allowed: {allowed}")

    negative = (box < -TOLERANCE).any(1) | (w < 0) | (h < 0)
    above = (box > 1 + TOLERANCE).any(1)
    report(negative, "coordinate-negative", lambda i: f"{_numbers(box[i])}; allowed: 0 to 1")
    report(above & ~negative, "coordinate-above-one", lambda i: f"{_numbers(box[i])}; allowed: 0 to 1")
    bad = negative | above
    slightly = ~bad & (box < -ROUNDING).any(1)
    report(slightly, "coordinate-negative", lambda i: f"{_numbers(box[i])}; allowed: 0 to 1", Severity.WARNING)
    slightly = ~bad & (box > 1 + ROUNDING).any(1)
    report(slightly, "coordinate-above-one", lambda i: f"{_numbers(box[i])}; allowed: 0 to 1", Severity.WARNING)

    free = np.ones(len(table), dtype=bool)
    free[list(rows.polygons)] = False  # polygons have rules of their own
    zero = ~bad & ((w == 0) | (h == 0))
    report(zero & free, "box-zero-area", lambda i: f"{number(w[i])} x {number(h[i])}; both must be above 0")
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.minimum(1, imgsz / np.maximum(width, height))
    pixels = np.minimum(w * width, h * height) * scale
    tiny = known & ~bad & ~zero & (pixels < 1)
    report(
        tiny,
        "box-subpixel",
        lambda i: (
            f"{pixels[i]:.2g} pixels at imgsz={imgsz}, {w[i] * width[i]:.3g} x {h[i] * height[i]:.3g} in the"
            " file; expected: 1 or more"
        ),
    )
    beyond = np.maximum(
        np.maximum(w / 2 - x, x + w / 2 - 1) * width, np.maximum(h / 2 - y, y + h / 2 - 1) * height
    )  # pixels
    report(
        known & ~bad & free & (beyond > 1),
        "box-over-edge",
        lambda i: f"reaches {beyond[i]:.3g} pixels over the edge; allowed: 1",
    )
    most = limits["box-large"]
    report(
        ~bad & free & (w * h > most),
        "box-large",
        lambda i: f"covers {w[i] * h[i]:.1%} of the image; the limit is {most:.0%}",
    )
    shape = np.where(known, height / np.maximum(width, 1), 1) * h
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect = np.maximum(w / shape, shape / w)
    longest = limits["box-aspect"]
    report(
        ~bad & ~zero & ~tiny & free & (aspect > longest),
        "box-aspect",
        lambda i: f"sides are {aspect[i]:.0f} : 1; expected: {longest:g} : 1 at most",
    )
    good = ~(fraction | outside | bad)
    places = np.searchsorted(ids, cls[good]) if len(ids) else np.zeros(0, dtype=np.int64)
    return np.bincount(places, minlength=len(ids))


def usable(table: np.ndarray) -> np.ndarray:
    """Return which rows of class, centre, width and height Ultralytics takes: ``(N, 5)`` to ``(N,)`` bool."""
    box = table[:, 1:]
    return ((box >= -TOLERANCE) & (box <= 1 + TOLERANCE)).all(1) & (table[:, 3] > 0) & (table[:, 4] > 0)


def _numbers(values: np.ndarray) -> str:
    return " ".join(number(value) for value in values)
