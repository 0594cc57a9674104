"""Pose labels without kpt_shape: told to be that and judged no further; outlines and rotated boxes never are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from check.planted import BOX, Planted

from yolo_stable.check import check
from yolo_stable.check.pose_form import keypoint_shape

Draw = Callable[[np.random.Generator], list[float]]


def pose(count: int, size: int, missing: float = 0.2) -> Draw:
    """Return what draws a box with points in it, some of them not labelled."""

    def draw(random: np.random.Generator) -> list[float]:
        width, height = random.uniform(0.05, 0.5, 2)
        x, y = random.uniform(width / 2, 1 - width / 2), random.uniform(height / 2, 1 - height / 2)
        points = np.stack([random.uniform(x - width / 2, x + width / 2, count),
                           random.uniform(y - height / 2, y + height / 2, count)], axis=1)  # fmt: skip
        gone = random.random(count) < missing
        points[gone] = 0
        seen = np.where(gone, 0, 2)[:, None]
        return [x, y, width, height, *np.concatenate([points, seen], axis=1)[:, :size].ravel()]

    return draw


def outline(corners: int, least: float, most: float) -> Draw:
    """Return what draws a polygon around a place."""

    def draw(random: np.random.Generator) -> list[float]:
        radius = random.uniform(least, most)
        x, y = random.uniform(radius, 1 - radius, 2)
        angles = random.uniform(0, 7) + np.arange(corners) * 2 * np.pi / corners
        return list(np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1).ravel())

    return draw


def texts(draw: Draw, seed: int, count: int = 30) -> list[str]:
    random = np.random.default_rng(seed)
    return ["0 " + " ".join(f"{value:.6g}" for value in draw(random)) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(1, 3), (2, 3), (17, 3), (21, 3), (2, 2), (4, 2), (17, 2), (68, 2)])
def test_the_shape_of_keypoints_is_told(shape: tuple[int, int], seed: int) -> None:
    told = keypoint_shape(texts(pose(*shape, missing=0.2 if shape[0] > 1 else 0), seed))
    assert told == (None if shape in {(1, 3), (2, 2)} else shape)  # so few columns may be anything


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("corners", [3, 4, 5, 8, 12, 20, 60])
@pytest.mark.parametrize(("least", "most"), [(0.01, 0.03), (0.02, 0.45), (0.3, 0.49)])
def test_outlines_and_rotated_boxes_are_no_poses(corners: int, least: float, most: float, seed: int) -> None:
    assert keypoint_shape(texts(outline(corners, least, most), seed)) is None


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("corners", [4, 6, 12, 30])
def test_uneven_outlines_in_the_middle_are_no_poses(corners: int, seed: int) -> None:
    """There the first point, taken for a centre, with the second, taken for a size, encloses the others."""

    def draw(random: np.random.Generator) -> list[float]:
        angles = np.sort(random.uniform(0, 2 * np.pi, corners))
        reach = random.uniform(0.03, 0.15) * random.uniform(0.4, 1, corners)
        return list(np.stack([0.5 + reach * np.cos(angles), 0.5 + reach * np.sin(angles)], axis=1).ravel())

    assert keypoint_shape(texts(draw, seed)) is None


def test_few_rows_rows_of_other_lengths_and_boxes_alone_say_nothing() -> None:
    rows = texts(pose(4, 2), 0)
    assert keypoint_shape(rows[:9]) is None
    assert keypoint_shape([*rows, rows[0] + " 0.5 0.5"]) is None
    assert keypoint_shape([*rows, BOX]) is None
    assert keypoint_shape([BOX] * 20) is None
    assert keypoint_shape([]) is None
    cls, *rest = rows[0].split()
    for word in ("nan", "inf", "x"):
        assert keypoint_shape([*rows, " ".join([cls, word, *rest[1:]])]) is None


@pytest.mark.parametrize(("size", "has"), [(3, "x, y and visibility"), (2, "x and y")])
@pytest.mark.parametrize("task", [None, "pose"])
def test_a_pose_set_without_its_shape_has_one_finding(tmp_path: Path, size: int, has: str, task: str | None) -> None:
    data = Planted(tmp_path, names=["person"])
    for number in range(12):
        split = "val" if number % 4 == 3 else "train"
        data.add(f"{number}", labels=texts(pose(5, size), number, 3), split=split)
    report = check(data.write(), task=task)
    (finding,) = report.findings
    assert (report.task, finding.rule.id, finding.severity.value) == ("pose", "kpt-shape", "error")
    told = f"kpt_shape is missing, and each label row is a box around 5 points of {has}; write kpt_shape: [5, {size}]"
    assert task or finding.message == told
    data.description["kpt_shape"] = [5, size]  # the advice works
    assert {f.rule.id for f in check(data.write()).findings} <= {"keypoint-corner"}


def test_a_wrong_shape_is_told_once(tmp_path: Path) -> None:
    data = Planted(tmp_path, names=["person"], kpt_shape=[17])
    for number in range(12):
        data.add(f"{number}", labels=texts(pose(5, 3), number, 3), split="val" if number % 4 == 3 else "train")
    assert [f.message for f in check(data.write()).findings] == [
        "kpt_shape is [17]; it must be [number of keypoints, 2 or 3]"
    ]
