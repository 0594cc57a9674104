"""Near labels: copies of one picture whose labels contradict each other.

Boxes are compared in the coordinates of the second picture, to which the turn and the shift of the two bring them. Small objects,
objects near an edge, which a crop may cut, and crowds, as a video shows something else in each frame, are left alone. Classes are
compared only where nothing was turned: a mirrored arrow may well be of another class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from .detail import Kinship
from .duplicates import flat
from .finding import DataFinding
from .folders import class_of
from .layout import Layout
from .near import Link, crowds
from .objects import outline
from .rules import found
from .scan import Scan

RULE = "near-duplicate-labels"
SMALLEST = 0.06
"""Least side of a box, as a share: smaller objects may have moved unseen."""
MARGIN = 0.02
"""Share of a side by which a box must lie inside both pictures."""
SAME_OBJECT, NO_OBJECT = 0.5, 0.1
"""Intersection over union from which on two boxes mean one object, and below which a box has no counterpart."""


def check_near_labels(layout: Layout, links: Mapping[int, Link], scans: Mapping[str, Scan]) -> Iterator[DataFinding]:
    """Report near duplicates whose labels contradict those of their original."""
    paths, splits = flat(scans)
    crowd = crowds(links)
    tables = dict(_tables(scans)) if links else {}
    empty = np.zeros((0, 6), np.float32)
    for image, link in sorted(links.items()):
        if image in crowd or link.kinship != Kinship.SAME:
            continue
        path, other = paths(image), paths(link.partner)
        if layout.task == "classify":
            mine, theirs = (
                class_of(p, Path(layout.splits[splits(i)][0])) for p, i in ((path, image), (other, link.partner))
            )
            if mine != theirs and not link.turn:
                message = f"is of class {mine}, and {other}, which shows the same picture, of class {theirs}"
                yield found(RULE, path, message, image=path, others=(other, path))
        elif contradiction := _contradiction(tables.get(path, empty), tables.get(other, empty), link, layout.names):
            what, box = contradiction
            message = f"shows the picture of {other} ({splits(link.partner)}), with other labels: {what}"
            yield found(RULE, path, message, image=path, points=outline(box), others=(other, path))


def _tables(scans: Mapping[str, Scan]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield, for each image with objects, rows of class, centre, width, height and line: ``(N, 6)`` float32."""
    for scan in scans.values():
        table = np.column_stack([scan.taken.table, scan.taken.lines])
        starts = np.searchsorted(scan.taken.owners, np.arange(len(scan.taken.images) + 1))
        for path, (begin, end) in zip(scan.taken.images, pairwise(starts), strict=True):
            yield path, table[begin:end]


def _contradiction(
    mine: np.ndarray, theirs: np.ndarray, link: Link, names: Mapping[int, str]
) -> tuple[str, np.ndarray] | None:
    """Return the first contradiction of labels in words, and the box in the image that shows it."""
    there = _turned(theirs, link.turn)
    brought = _placed(there, link.shift)
    overlap = _overlaps(mine, brought)
    judged = _is_plain(mine) & _is_plain(_placed(mine, link.shift, back=True))
    for row, shared in zip(mine[judged], overlap[judged], strict=True):
        if shared.max(initial=0) < NO_OBJECT:
            return f"line {int(row[5])} ({_name(row, names)}) has no counterpart there", row[:5]
        same = theirs[shared >= SAME_OBJECT]
        if not link.turn and len(same) and row[0] not in same[:, 0]:
            what = f"line {int(row[5])} is {_name(row, names)} and line {int(same[0, 5])} there {_name(same[0], names)}"
            return what, row[:5]
    judged = _is_plain(there) & _is_plain(brought)
    for row, shared in zip(brought[judged], overlap.T[judged], strict=True):
        if shared.max(initial=0) < NO_OBJECT:
            return f"line {int(row[5])} there ({_name(row, names)}) has no counterpart here", row[:5]
    return None


def _turned(rows: np.ndarray, turn: int) -> np.ndarray:
    """Return rows where the turned picture has them, see :func:`yolo_stable.check.fingerprints.turned`."""
    cls, x, y, w, h, line = rows.T
    if turn & 4:
        x, y, w, h = y, x, h, w
    return np.stack([cls, 1 - x if turn & 2 else x, 1 - y if turn & 1 else y, w, h, line], axis=1)


def _placed(rows: np.ndarray, shift: np.ndarray, *, back: bool = False) -> np.ndarray:
    """Return rows of the one picture where the other has them, or back; see :func:`yolo_stable.check.likeness.moved`."""
    stretch, by = 1 + 2 * shift[2:], shift[:2] - shift[2:]
    placed = rows.copy()
    if back:
        placed[:, 1:3], placed[:, 3:5] = rows[:, 1:3] * stretch + by, rows[:, 3:5] * stretch
    else:
        placed[:, 1:3], placed[:, 3:5] = (rows[:, 1:3] - by) / stretch, rows[:, 3:5] / stretch
    return placed


def _is_plain(rows: np.ndarray) -> np.ndarray:
    """Return which boxes are large enough and far enough from the edges."""
    reach = rows[:, 3:5] / 2
    inside = (rows[:, 1:3] - reach >= MARGIN) & (rows[:, 1:3] + reach <= 1 - MARGIN)
    return np.asarray((inside & (rows[:, 3:5] >= SMALLEST)).all(1))


def _overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each row with each: ``(N, M)``."""
    (a, b), (c, d) = ((rows[:, 1:3] - rows[:, 3:5] / 2, rows[:, 1:3] + rows[:, 3:5] / 2) for rows in (one, other))
    shared = (np.minimum(b[:, None], d) - np.maximum(a[:, None], c)).clip(0).prod(-1)
    return shared / np.maximum((b - a).prod(1)[:, None] + (d - c).prod(1) - shared, 1e-12)


def _name(row: np.ndarray, names: Mapping[int, str]) -> str:
    return names.get(int(row[0]), f"class {int(row[0])}")
