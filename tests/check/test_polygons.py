"""Outlines of objects, for segmentation and for oriented boxes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from check.planted import BOX, clean, found_in

from yolo_stable.check import Severity, check
from yolo_stable.check.polygons import MOST_PAIRS, area, crossing

HOUSE = "0 0.2 0.8 0.2 0.4 0.5 0.1 0.8 0.4 0.8 0.8"
TILTED = "1 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5"
BOW_TIE = "0 0.2 0.2 0.8 0.8 0.8 0.2 0.2 0.8"


def test_each_defect_of_a_segmentation_set_is_found_and_nothing_else(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=[HOUSE, TILTED])
    data.line("polygon-points", HOUSE, "1 0.1 0.1 0.4 0.4")
    data.line("polygon-zero-area", HOUSE, "1 0.1 0.1 0.4 0.4 0.1 0.1 0.4 0.4")
    data.line("polygon-zero-area", HOUSE, "1 0.1 0.1 0.1 0.1 0.1 0.1")
    data.line("polygon-crossing", HOUSE, BOW_TIE)
    data.line("polygon-zero-area", HOUSE, "1 0.1 0.1 0.2 0.2 0.3 0.3")
    data.line("label-columns", HOUSE, "1 0.1 0.1 0.2 0.2 0.3 0.3 0.4")
    data.line("coordinate-above-one", HOUSE, "1 0.7 0.7 1.2 0.7 1.2 0.9")
    data.line("coordinate-negative", HOUSE, "1 -0.3 0.7 0.1 0.7 0.1 0.9")
    data.line("coordinate-above-one", HOUSE, "1 7 7 12 7 12 9")
    data.line("class-range", HOUSE, TILTED.replace("1", "5", 1))
    data.line("box-duplicate", HOUSE, HOUSE)
    data.line("label-not-finite", HOUSE, HOUSE.replace("0.5", "nan", 1))
    report = check(data.root, near=False)
    assert report.task == "segment"
    assert found_in(report) == data.expected


def test_each_defect_of_oriented_boxes_is_found_and_nothing_else(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=[TILTED])
    data.line("polygon-crossing", TILTED, BOW_TIE)
    data.line("polygon-zero-area", TILTED, "1 0.1 0.1 0.2 0.2 0.3 0.3 0.4 0.4")
    data.line("polygon-points", TILTED, BOX)
    data.line("label-columns", TILTED, HOUSE)
    report = check(data.root, near=False)
    assert report.task == "obb"
    assert found_in(report) == data.expected
    loose = [finding.severity for finding in report.findings if finding.rule.id == "label-columns"]
    assert loose == [Severity.WARNING]  # Ultralytics makes a box of any outline


@pytest.mark.parametrize("corners", [3, 4, 5, 12, 700])
def test_a_regular_polygon_does_not_cross_itself_but_a_star_does(corners: int) -> None:
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    outline = np.stack([np.cos(angles), np.sin(angles)], 1)
    assert not crossing(outline)[0]
    assert area(outline) == pytest.approx(corners / 2 * np.sin(2 * np.pi / corners))
    if corners >= 5:
        outline[[1, 3]] = outline[[3, 1]]
        assert crossing(outline)[0]


def test_parts_that_are_joined_by_a_line_there_and_back_do_not_cross() -> None:
    """As Ultralytics' converter writes objects of several parts."""
    joined = np.array([[0, 0], [1, 0], [1, 1], [3, 1], [3, 0], [4, 0], [4, 1], [3, 1], [1, 1], [0, 1]], dtype=float)
    assert not crossing(joined)[0]


def test_an_outline_beyond_the_image_is_told_once(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=[HOUSE, TILTED])
    for number, line in enumerate(
        ("1 1.2 0.2 1.6 0.2 1.6 0.4", "1 0.2 -0.6 0.6 -0.6 0.6 -0.2", "1 0.7 0.7 1.2 0.7 1.2 0.9")
    ):
        data.add(f"{number}", labels=[HOUSE, line])
    found = [(Path(f.path).stem, f.rule.id) for f in check(data.root, near=False, sample=0).findings]
    assert found == [("0", "coordinate-above-one"), ("1", "coordinate-negative"), ("2", "coordinate-above-one")]


def test_careful_outlines_take_few_pairs_and_no_outline_takes_more_than_is_left() -> None:
    turn = np.linspace(0, 2 * np.pi, 4_001)[:-1]
    circle = np.c_[np.cos(turn), np.sin(turn)]
    crosses, pairs = crossing(circle)
    assert not crosses
    assert pairs < MOST_PAIRS / 1_000, "a thousand of them are all judged"
    rows = np.repeat(np.linspace(0, 1, 1_000), 2)
    snake = np.c_[np.tile([0.1, 0.9, 0.9, 0.1], 500), rows]  # all of its long edges share their columns
    assert crossing(snake, 50_000)[1] <= 52_000
