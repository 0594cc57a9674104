"""Labels of poses, with two and with three numbers for a keypoint."""

from __future__ import annotations

from pathlib import Path

from check.planted import clean, found_in

from yolo_stable.check import Severity, check

POSE = "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 1"
FLAT = "0 0.5 0.5 0.4 0.4 0.4 0.4 0.6 0.6"


def test_each_defect_of_a_pose_set_is_found_and_nothing_else(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=[POSE], kpt_shape=[2, 3], flip_idx=[1, 0], names=["person"])
    data.line("keypoint-outside", POSE, "0 0.3 0.3 0.2 0.2 0.3 1.4 2 0.3 0.3 1")
    data.line("keypoint-outside", POSE, "0 0.3 0.3 0.2 0.2 0.3 1.005 2 0.3 0.3 1")
    data.line("keypoint-outside", POSE, "0 0.3 0.3 0.2 0.2 0.3 -0.2 0 0.3 0.3 1")
    data.line("keypoint-visibility", POSE, "0 0.3 0.3 0.2 0.2 0.3 0.4 3 0.3 0.3 1")
    data.line("keypoint-visibility", POSE, "0 0.3 0.3 0.2 0.2 0.3 0.4 -1 0.3 0.3 1")
    data.line("label-columns", POSE, "0 0.3 0.3 0.2 0.2")
    data.line("label-columns", POSE, FLAT)
    data.line("box-zero-area", POSE, "0 0.3 0.3 0 0.2 0.3 0.3 2 0.3 0.3 1")
    data.add("hidden", labels=["0 0.3 0.3 0.2 0.2 0 0 0 0 0 0"])
    report = check(data.root, near=False)
    assert (report.task, report.keypoints) == ("pose", (2, 3))
    assert found_in(report) == data.expected
    slight = [f.severity for f in report.findings if f.rule.id == "keypoint-outside" and "1.005" in f.message]
    assert slight == [Severity.WARNING]


def test_with_two_numbers_a_slightly_negative_one_means_not_visible(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=[FLAT], kpt_shape=[2, 2], names=["person"])
    data.add("hidden", labels=["0 0.3 0.3 0.2 0.2 -0.005 0.3 0.4 0.4"])
    data.line("keypoint-outside", FLAT, "0 0.3 0.3 0.2 0.2 -1 0.3 0.4 0.4")
    assert found_in(check(data.root, near=False)) == data.expected


def test_a_box_task_takes_the_boxes_of_pose_labels(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=[POSE], kpt_shape=[2, 3], names=["person"])
    assert found_in(check(data.root, task="detect", near=False)) == set()


def test_with_two_numbers_0_0_is_said_to_be_visible(tmp_path: Path) -> None:
    from ultralytics.data.utils import verify_image_label

    data = clean(tmp_path, lines=[FLAT], kpt_shape=[2, 2], names=["person"])
    image = data.line("keypoint-corner", FLAT, "0 0.3 0.3 0.2 0.2 0 0 0.3 0.3")
    args = (str(image), str(data.label_of(image)), "", True, 1, 2, 2, False)
    assert verify_image_label(args)[4][1][0].tolist() == [0, 0, 1]
    data.add("at the edge", labels=["0 0.3 0.3 0.2 0.2 0 0.3 0.3 0"])
    report = check(data.root, near=False)
    assert found_in(report) == data.expected
    assert [f.message for f in report.findings] == ["keypoint 0 at 0 0 counts as visible in the corner of the image"]


def test_with_three_numbers_0_0_is_one_only_where_it_is_called_visible(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=[POSE], kpt_shape=[2, 3], names=["person"])
    data.line("keypoint-corner", POSE, "0 0.3 0.3 0.2 0.2 0 0 2 0 0 1")
    data.add("unlabelled", labels=["0 0.3 0.3 0.2 0.2 0 0 0 0 0 0"])
    assert found_in(check(data.root, near=False)) == data.expected


def test_keypoints_that_no_object_shows_are_told_once_for_a_split(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=["0 0.5 0.5 0.4 0.4 0.4 0.4 0 0.6 0.6 0"], kpt_shape=[2, 3], names=["person"])
    said = [(f.rule.id, f.severity, f.message) for f in check(data.root, near=False).findings]
    assert said == [
        ("keypoint-unseen", Severity.WARNING, "train: no keypoint is visible in any of 6 objects"),
        ("keypoint-unseen", Severity.WARNING, "val: no keypoint is visible in any of 3 objects"),
    ]
    for image in (tmp_path / "images/train").iterdir():
        data.label_of(image).write_text("0 0.5 0.5 0.4 0.4 0.4 0.4 1 0.6 0.6 0\n")
    said = [(f.severity, f.message) for f in check(data.root, near=False).findings if "train" in f.message]
    assert said == [(Severity.INFO, "train: keypoint 1 is visible in none of 6 objects")]


def test_with_two_numbers_a_keypoint_is_unseen_where_it_is_always_negative(tmp_path: Path) -> None:
    data = clean(tmp_path, lines=["0 0.5 0.5 0.4 0.4 -0.005 0.4 -0.005 0.6"], kpt_shape=[2, 2], names=["person"])
    assert {finding.rule.id for finding in check(data.root, near=False).findings} == {"keypoint-unseen"}
