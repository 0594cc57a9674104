"""Boxes in a format that nobody reads here are told from all of them together; honest ones that reach over the edge are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from check.planted import Planted, clean

from yolo_stable.check import DataReport, Severity, check, run_check
from yolo_stable.errors import InvalidCallError

Line = Callable[[float, float, float, float], str]


def corners(x1: float, y1: float, x2: float, y2: float) -> str:
    return f"0 {x1:.4f} {y1:.4f} {x2:.4f} {y2:.4f}"


def top_left(x1: float, y1: float, x2: float, y2: float) -> str:
    return corners(x1, y1, x2 - x1, y2 - y1)


def centre(x1: float, y1: float, x2: float, y2: float) -> str:
    return corners((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1)


def told(report: DataReport) -> list[str]:
    return [finding.message for finding in report.findings if finding.rule.id == "box-format"]


def written(root: Path, line: Line, images: int = 10, out: float = 0.0, close: bool = False) -> Planted:
    """Write boxes anywhere in the images; with ``out`` unclipped by so much, ``close``: each fills most of its image."""
    data, rng = clean(root, lines=()), np.random.default_rng(0)
    for number in range(images):
        boxes = []
        for _ in range(4):
            low, size = rng.uniform(0.05, 0.5, 2), rng.uniform(0.15, 0.45, 2)
            if close:
                low, size = rng.uniform(0.01, 0.05, 2), rng.uniform(0.85, 0.9, 2)
            boxes.append(line(*(low - out), *(low + size + out)))
        data.add(f"image-{number}", labels=boxes)
    return data


@pytest.mark.parametrize(
    ("line", "form"), [(corners, "two corners, x1 y1 x2 y2"), (top_left, "the top left corner with width and height")]
)
def test_boxes_that_would_all_be_right_otherwise_are_told_and_no_copy_is_made(
    line: Line, form: str, tmp_path: Path
) -> None:
    data = written(tmp_path / "data", line)
    report = check(data.root, sample=0, near=False)
    (message,) = told(report)
    assert message.endswith(f"and all of them would lie inside as {form}")
    assert {f.severity for f in report.findings if f.rule.id == "box-format"} == {Severity.WARNING}
    with pytest.raises(InvalidCallError, match="what the numbers of the boxes mean cannot be told"):
        run_check(str(data.root), fix=tmp_path / "copy", near=False)
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("out", "close"),
    [
        pytest.param(0.0, False, id="inside"),
        pytest.param(0.2, False, id="a third reach over the edge, as no tool has clipped them"),
        pytest.param(0.0, True, id="close-ups"),
    ],
)
def test_honest_boxes_are_not(out: float, close: bool, tmp_path: Path) -> None:
    assert told(check(written(tmp_path, centre, out=out, close=close).root, sample=0, near=False)) == []


def test_a_clock_in_the_corner_of_each_picture_is_honest(tmp_path: Path) -> None:
    data, rng = clean(tmp_path, lines=()), np.random.default_rng(0)
    for number in range(30):
        x, y = rng.uniform(0.03, 0.05, 2)
        data.add(f"image-{number}", labels=[f"0 {x:.4f} {y:.4f} 0.12 0.12"])
    assert told(check(data.root, sample=0, near=False)) == []


def test_of_a_few_boxes_nothing_is_told(tmp_path: Path) -> None:
    assert told(check(written(tmp_path, corners, images=4).root, sample=0, near=False)) == []
