"""Label files: read line by line, as far as the format of each task goes; other modules judge the numbers."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

import numpy as np

from .._shared.regular_file import read_file
from .finding import DataFinding, Severity
from .rules import found

MOST_BYTES = 16 << 20
"""Limit of a label file; a crowded image with outlines of a thousand points takes a tenth of it."""
MOST_LINES = 50_000


@dataclass(frozen=True, slots=True)
class Format:
    """What a line of a label file has to hold."""

    task: str
    classes: tuple[int, ...]
    """Ids of the classes, ascending; none: not known, and none is wrong."""
    keypoints: tuple[int, int] = (0, 0)
    """Keypoints of an object, and numbers of each."""

    @property
    def columns(self) -> str:
        """The allowed number of columns, in words."""
        if self.task == "pose":
            return str(5 + math.prod(self.keypoints))
        return {"detect": "5", "segment": "7 or more, and odd", "obb": "9"}[self.task]


@dataclass(slots=True)
class Rows:
    """The readable lines of many label files, for rules that judge them at once."""

    boxes: list[list[float]] = field(default_factory=list)
    """Class, centre, width and height of each."""
    owners: list[int] = field(default_factory=list)
    """The file of each, a place in :attr:`files`."""
    lines: list[int] = field(default_factory=list)
    polygons: dict[int, np.ndarray] = field(default_factory=dict)
    """Points by place in :attr:`boxes`: ``(K, 2)`` float64."""
    numbers: int = 0
    """Numbers in all rows: their cost in memory."""
    keypoints: list[list[float]] = field(default_factory=list)
    """One for each of :attr:`boxes`, if the task has keypoints."""
    files: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of the images, 0 when unknown."""

    def begin(self, file: str, image: str, size: tuple[int, int]) -> None:
        """Begin with the rows of a file."""
        self.files.append(file)
        self.images.append(image)
        self.sizes.append(size)

    def add(self, line: int, values: list[float], polygon: np.ndarray | None = None) -> None:
        """Add a row of the file that was begun last."""
        self.numbers += len(values) if polygon is None else polygon.size
        if polygon is not None:
            self.polygons[len(self.boxes)] = polygon
        self.boxes.append(values)
        self.owners.append(len(self.files) - 1)
        self.lines.append(line)


def read_labels(
    path: str, image: str, size: tuple[int, int], form: Format, rows: Rows, findings: list[DataFinding]
) -> bool:
    """Read a label file.

    Args:
        path: The file.
        image: Its image.
        size: Width and height of the image in pixels, 0 when unknown.
        form: What a line has to hold.
        rows: Takes the readable lines.
        findings: Takes what is wrong.

    Returns:
        Whether the file has a line.
    """
    if not os.path.isfile(path):  # as Ultralytics asks
        there = "leads nowhere" if os.path.islink(path) else "is no file"
        message, severity = f"{path} {there}", Severity.WARNING
        if not os.path.lexists(path):
            message, severity = f"{path} is missing", None
        findings.append(found("label-missing", image, message, image=image, severity=severity))
        return False
    try:
        text = read_file(path, most=MOST_BYTES, links=True).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"byte {error.start} is not UTF-8"
        findings.append(found("label-encoding", path, message, image=image))
        return True
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        findings.append(found("label-parse", path, message, image=image))
        return True
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        message = f"has {len(lines)} lines; at most {MOST_LINES} are read here, and no training has room for more"
        findings.append(found("label-parse", path, message, image=image))
        return True
    rows.begin(path, image, size)
    plain: list[int] = []
    seen: dict[tuple[float, ...], tuple[int, float]] = {}
    any_polygon = False
    for line, content in enumerate(lines, start=1):
        words = content.split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            findings.append(found("label-parse", path, f"{error}; expected: numbers", line=line, image=image))
            continue
        if not math.isfinite(sum(values)):
            bad = next((word for word, value in zip(words, values, strict=True) if not math.isfinite(value)), words[0])
            message = f"holds {bad}; expected: finite numbers"
            findings.append(found("label-not-finite", path, message, line=line, image=image))
            continue
        shape = shape_of(len(values), form)
        if shape in {"box", "loose"}:
            plain.append(line)
        if shape in {"polygon", "loose"}:
            any_polygon = True
        if shape in {"columns", "points"}:
            findings.append(_misshapen(shape, path, line, len(values), form, image))
            continue
        if shape == "loose":
            message = f"{len(values)} columns; expected: {form.columns}"
            findings.append(found("label-columns", path, message, line=line, image=image, severity=Severity.WARNING))
        key = tuple(values[1:])
        line_before, class_before = seen.setdefault(key, (line, values[0]))
        if line_before != line:
            rule = "box-duplicate" if class_before == values[0] else "box-two-classes"
            message = f"the same as line {line_before}" + ("" if rule == "box-duplicate" else ", with another class")
            findings.append(found(rule, path, message, line=line, image=image, points=_outline(values)))
        if shape == "box":
            rows.add(line, values[:5])
            if form.task == "pose":
                rows.keypoints.append(values[5:])
        else:
            points = np.array(values[1:]).reshape(-1, 2)
            low, high = points.min(0), points.max(0)
            rows.add(line, [values[0], *((low + high) / 2), *(high - low)], points)
    if any_polygon and form.task == "detect":
        for line in plain:
            message = "5 columns, and other lines of the file have polygons; a file holds one kind"
            findings.append(found("label-columns", path, message, line=line, image=image))
    return bool(text.strip())


def shape_of(count: int, form: Format) -> str:
    """Say what a line of this many columns is: box, polygon, loose (nearly the task's polygon), points or columns (wrong)."""
    task = form.task
    full = 5 + math.prod(form.keypoints) if form.keypoints[0] else 5
    if task == "pose":
        return "box" if count == full else "columns"
    if task == "detect" and count in (5, full):
        return "box"
    if count > 6 and count % 2:
        return "polygon" if task != "obb" or count == 9 else "loose"
    return "points" if task in {"segment", "obb"} and count in (3, 5) else "columns"


def objects_of(path: str) -> object:
    """Return what a label file says: equal for the same objects in any order and writing.

    No file says what an empty one does; an unreadable one is its bytes.
    """
    if not os.path.isfile(path):
        return frozenset()
    try:
        content = read_file(path, most=MOST_BYTES, links=True)
    except (OSError, ValueError) as error:
        return str(error)
    try:
        lines = content.decode("utf-8-sig").splitlines()
        return frozenset(tuple(map(np.float32, words)) for words in map(str.split, lines) if words)
    except ValueError:
        return content


def _misshapen(shape: str, path: str, line: int, count: int, form: Format, image: str) -> DataFinding:
    if shape == "points":
        also = ", or a box of another task" if count == 5 else ""
        message = f"{count} columns are {(count - 1) // 2} point(s){also}; allowed: {form.columns} columns"
        return found("polygon-points", path, message, line=line, image=image)
    message = f"{count} columns; allowed for {form.task}: {form.columns}"
    return found("label-columns", path, message, line=line, image=image)


def _outline(values: list[float]) -> tuple[tuple[float, float], ...]:
    if len(values) > 6 and len(values) % 2:
        return tuple(zip(values[1::2], values[2::2], strict=True))
    return corners(*values[1:5])


def corners(x: float, y: float, width: float, height: float) -> tuple[tuple[float, float], ...]:
    """Return the corners of a box that is given by centre and size.

    Examples:
        >>> corners(0.5, 0.5, 1.0, 0.5)
        ((0.0, 0.25), (1.0, 0.25), (1.0, 0.75), (0.0, 0.75))
    """
    left, right, top, bottom = x - width / 2, x + width / 2, y - height / 2, y + height / 2
    return (left, top), (right, top), (right, bottom), (left, bottom)


def guess_task(texts: list[str]) -> str:
    """Return the task that most lines of label files are for.

    Examples:
        >>> guess_task(["0 .5 .5 .1 .1"]), guess_task(["0 .1 .1 .2 .1 .2 .2 .1 .2"]), guess_task(["0 1 2 3 4 5 6"])
        ('detect', 'obb', 'segment')
    """
    counts = [len(line.split()) for text in texts for line in text.splitlines() if line.strip()]
    for task, columns in (("detect", 5), ("obb", 9)):
        if 2 * counts.count(columns) >= len(counts):
            return task
    return "segment" if 2 * sum(count > 6 for count in counts) >= len(counts) else "detect"
