"""The data.yaml: each defect at its line, and everything else as Ultralytics reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from check.planted import Planted, clean

from yolo_stable.check import check
from yolo_stable.check.files import label_path, list_images
from yolo_stable.check.finding import Severity
from yolo_stable.check.place import read_layout
from yolo_stable.errors import InvalidCallError


def with_yaml(data: Planted, text: str) -> Path:
    path = data.root / "data.yaml"
    path.write_text(text)
    return path


DEFECTS = {
    "yaml-unreadable": ("train: images/train\nval: 'images/val\nnames: [a, b]\n", None),
    "yaml-key": ("train: images/train\nval: images/val\nnames: two\n", 3),
    "names-nc": ("train: images/train\nval: images/val\nnc: 3\nnames: [a, b]\n", 3),
    "names-twice": ("train: images/train\nval: images/val\nnames:\n  0: a\n  1: A\n", 5),
    "path-missing": ("train: images/train\nval:\n - images/val\n - nowhere\nnames: [a, b]\n", 2),
    "split-same": ("train: images/train\nval: images/train\nnames: [a, b]\n", 2),
    "names-odd": ("train: images/train\nval: images/val\nnames:\n  0: yes\n  1: b\n", 4),
    "yaml-twice": ("train: images/train\nval: images/none\nnames: [a, b]\nval: images/val\n", 2),
    "kpt-shape": ("train: images/train\nval: images/val\nkpt_shape: [2, 4]\nnames: [a, b]\n", 3),
}


@pytest.mark.parametrize("rule", DEFECTS)
def test_each_defect_is_found_at_its_line(tmp_path: Path, rule: str) -> None:
    text, line = DEFECTS[rule]
    path = with_yaml(clean(tmp_path), text)
    findings = [finding for finding in check(path, near=False, sample=0).findings if finding.rule.id == rule]
    assert [finding.path for finding in findings] == [str(path)]
    assert line is None or findings[0].line == line


@pytest.mark.parametrize(
    ("names", "line"), [("{0: a, 2: b}", 3), ("{x: a, y: b}", 3), ("[]", 3), ("\nnc: two", 4), ("\nnc: 0", 3)]
)
def test_class_ids_that_leave_gaps_or_are_none(tmp_path: Path, names: str, line: int) -> None:
    path = with_yaml(clean(tmp_path), f"train: images/train\nval: images/val\nnames: {names}\n")
    findings = check(path, near=False, sample=0).findings
    assert ("names-nc", line) in {(finding.rule.id, finding.line) for finding in findings}


@pytest.mark.parametrize(
    ("flip", "told"),
    [
        ("[0, 0, 1]", {"flip-idx"}),
        ("[1, 2, 0]", {"flip-idx"}),  # two flips do not give back what was there
        ("['0', '2', '1']", {"flip-idx"}),
        ("", {"flip-idx"}),  # null: Ultralytics asks for its length
        ("[]", set()),  # as if it were not there
        ("[0, 2, 1]", set()),
        ("[0, 1, 2]", set()),
    ],
)
def test_a_flip_gives_back_each_keypoint_when_it_is_done_twice(tmp_path: Path, flip: str, told: set[str]) -> None:
    data = clean(tmp_path, lines=["0 0.5 0.5 0.4 0.4 0.5 0.5 0.4 0.4 0.6 0.6"], kpt_shape=[3, 2], names=["a"])
    path = with_yaml(data, data.write().read_text() + f"flip_idx: {flip}\n")
    assert {finding.rule.id for finding in check(path, near=False, sample=0).findings} == told


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ("[yes, b]", "is written yes and is called 'True'"),
        ("[010, b]", "is written 010 and is called '8'"),
        ("[a, ]\n# null is no name\n", ""),
        ("[null, b]", "is written null and is called 'None'"),
        ("[{a: b}, b]", "is written a list or mapping and is called"),
        ("['', b]", "has an empty name"),
        ("['yes', 1]", ""),
        ("[2020-01-01, 1e3]", ""),
    ],
)
def test_names_that_yaml_takes_for_something_else_are_told(tmp_path: Path, names: str, told: str) -> None:
    path = with_yaml(clean(tmp_path), f"train: images/train\nval: images/val\nnames: {names}\n")
    odd = [f.message for f in check(path, near=False, sample=0).findings if f.rule.id == "names-odd"]
    assert len(odd) == bool(told)
    assert not told or told in odd[0]


@pytest.mark.parametrize(
    ("names", "line", "told"),
    [
        ("{0: a, 1: b, 1: c}", 3, "1 is there 2 times (line 3); Ultralytics takes the last: 'c'"),
        ("[x, y]\nnames: [a, b]", 3, "names is there 2 times (lines 3, 4); Ultralytics takes the last: ['a', 'b']"),
        ("{0: a, 00: z, 1: b}", 3, "0 is there 2 times (line 3); Ultralytics takes the last: 'z'"),
    ],
)
def test_a_key_that_is_there_twice_is_called_that_and_nothing_else(
    tmp_path: Path, names: str, line: int, told: str
) -> None:
    from ultralytics.utils import YAML

    path = with_yaml(clean(tmp_path), f"train: images/train\nval: images/val\nnames: {names}\n")
    report = check(path, near=False)
    assert [(f.rule.id, f.line, f.message) for f in report.findings] == [("yaml-twice", line, told)]
    theirs: Any = YAML.load(str(path))["names"]
    assert list(report.names.values()) == (theirs if isinstance(theirs, list) else list(theirs.values()))


def test_bytes_that_are_no_text_change_a_name(tmp_path: Path) -> None:
    data = clean(tmp_path)
    path = data.root / "data.yaml"
    path.write_bytes("train: images/train\nval: images/val\nnames: [größe, b]\n".encode("latin-1"))
    report = check(path, near=False, sample=0)
    assert (report.names[0], [f.rule.id for f in report.findings]) == ("gre", ["yaml-encoding"])


def test_a_description_with_another_ending_is_not_read_by_ultralytics(tmp_path: Path) -> None:
    path = clean(tmp_path).write().rename(tmp_path / "data.txt")
    findings = check(path, near=False, sample=0).findings
    assert [(f.rule.id, f.message) for f in findings] == [
        ("yaml-unreadable", "ends in .txt; Ultralytics reads .yaml and .yml")
    ]


def test_true_counts_as_one_channel(tmp_path: Path) -> None:
    report = check(clean(tmp_path, channels=True).root, near=False, sample=0)
    assert (report.channels, [(f.rule.id, f.severity) for f in report.findings]) == (
        1,
        [("yaml-key", Severity.WARNING)],
    )


def test_a_split_without_images_and_a_key_that_is_not_there(tmp_path: Path) -> None:
    data = clean(tmp_path)
    (data.root / "none").mkdir()
    path = with_yaml(data, "train: images/train\nval: none\nnames: [a, b]\n")
    assert {(f.rule.id, f.line) for f in check(path, near=False).findings} == {("split-empty", 2)}
    path = with_yaml(data, "train: images/train\nnames: [a, b]\n")
    assert {(f.rule.id, f.line) for f in check(path, near=False).findings} == {("yaml-key", None)}


def test_a_list_of_images_names_the_line_of_one_that_is_missing(tmp_path: Path) -> None:
    data = clean(tmp_path)
    listed = data.root / "train.txt"
    listed.write_text("./images/train/clean-train-0.png\n./images/train/gone.png\nnotes.md\n" + "\n".join(
        f"./images/train/clean-train-{number}.png" for number in range(1, 6)
    ))  # fmt: skip
    path = with_yaml(data, "train: train.txt\nval: images/val\nnames: [a, b]\n")
    report = check(path)
    assert {(f.rule.id, f.path, f.line) for f in report.findings} == {("list-entry-missing", str(listed), 2)}
    assert report.total == 9


YAMLS = {
    "relative": "train: images/train\nval: images/val\nnames: [a, b]\n",
    "with a root": "path: {root}\ntrain: images/train\nval: images/val\nnames: {{0: a, 1: b}}\n",
    "several folders": "train: [images/train, images/val]\nval: images/val\nnames: [a, b]\n",
    "from inside": "train: ../images/train\nval: ../images/val\nnames: [a, b]\n",
    "the other word": "train: images/train\nvalidation: images/val\nnc: '2'\n",
    "keys as text": "train: images/train\nval: images/val\nnames: {{'0': a, '1': 2}}\nnc: 2.0\n",
    "a list": "train: list.txt\nval: images/val\ntest: images/val\nnc: 2\n",
}


@pytest.mark.parametrize("name", YAMLS)
def test_reading_agrees_with_ultralytics(tmp_path: Path, name: str) -> None:
    from ultralytics.data.base import BaseDataset
    from ultralytics.data.utils import check_det_dataset, img2label_paths

    data = clean(tmp_path)
    (data.root / "images/train/deep/er").mkdir(parents=True)
    for extra in ("deep/er/A.JPG", "deep/b.TIFF", ".hidden.png", "two.dots.jpeg", "none"):
        (data.root / "images/train" / extra).touch()
    (data.root / "list.txt").write_text(f"./images/train/clean-train-0.png\n{data.root}/images/val/clean-val-0.png\n")
    path = with_yaml(data, YAMLS[name].format(root=data.root))
    theirs, ours = check_det_dataset(str(path)), read_layout(str(path))
    assert (ours.names, ours.findings) == (theirs["names"], [])

    class Listing(BaseDataset):
        def __init__(self) -> None:
            self.fraction, self.prefix = 1.0, ""

    for split in ("train", "val"):
        images = Listing().get_img_files(theirs[split])
        assert list_images(ours.splits[split]).images == images
        assert [label_path(image) for image in images] == img2label_paths(list(images))


def test_a_folder_is_searched_for_its_yaml(tmp_path: Path) -> None:
    data = clean(tmp_path)
    assert check(data.root, sample=0).place == data.root / "data.yaml"
    (data.root / "more.yaml").write_text("a: 1\n")
    with pytest.raises(InvalidCallError, match="2 YAML files"):
        check(data.root)


def test_a_yaml_of_ultralytics_is_found_by_its_name() -> None:
    """Its images are not here; that is a finding, and nothing is downloaded."""
    report = check("coco8.yaml", sample=0)
    assert {finding.rule.id for finding in report.findings} >= {"path-missing"}
    assert not (Path(os.getcwd()) / "coco8").exists()


@pytest.mark.parametrize("shape", [[1, 2], [1, 3], [17, 3]])
def test_one_keypoint_makes_a_pose_as_many_do(tmp_path: Path, shape: list[int]) -> None:
    layout = read_layout(str(clean(tmp_path, kpt_shape=shape, names=["a"]).root))
    assert (layout.task, layout.keypoints) == ("pose", tuple(shape))
    assert [f for f in layout.findings if f.rule.id == "kpt-shape"] == []


@pytest.mark.parametrize("names", [{0: "a", "0": "b"}, {0: "a", 10**30: "b"}], ids=["twice", "beyond any number"])
def test_names_whose_numbers_cannot_be_told_are_none(tmp_path: Path, names: dict[object, str]) -> None:
    layout = read_layout(str(clean(tmp_path, names=names).root))
    assert layout.names == {}
    assert [f.rule.id for f in layout.findings] == ["names-nc"]
