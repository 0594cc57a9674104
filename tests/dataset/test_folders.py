"""Data sets for classification: folders of classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dataset.planted import encoded, picture

from yolo_stable.dataset import check
from yolo_stable.errors import InvalidCallError


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    seed = 0
    for split, count in (("train", 4), ("val", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                seed += 1
                (folder / f"{number}.png").write_bytes(encoded(picture(seed)))
    return tmp_path


def places(root: Path) -> set[tuple[str, str]]:
    return {(f.rule.id, str(Path(f.path).relative_to(root))) for f in check(root).findings}


def test_a_clean_one_is_clean(animals: Path) -> None:
    report = check(animals)
    assert (report.task, list(report.findings), report.total, report.names) == (
        "classify",
        [],
        12,
        {0: "cat", 1: "dog"},
    )


def test_each_defect_is_found(animals: Path) -> None:
    (animals / "train/dog/none.jpg").write_bytes(b"")
    (animals / "train/lone.png").write_bytes(encoded(picture(90)))
    (animals / "train/dog/small.png").write_bytes(encoded(picture(91, 9, 64)))
    shutil.copy(animals / "train/dog/0.png", animals / "val/dog/leak.png")
    (animals / "val/bird").mkdir()
    (animals / "train/elk").mkdir()
    assert places(animals) == {
        ("image-empty", "train/dog/none.jpg"),
        ("image-stray", "train/lone.png"),
        ("image-small", "train/dog/small.png"),
        ("duplicate-across-splits", "val/dog/leak.png"),
        ("class-folders", "val"),
        ("class-folder-empty", "train/elk"),
        ("class-unused", "."),
    }


def test_a_class_is_numbered_as_ultralytics_numbers_it(animals: Path) -> None:
    from ultralytics.data.utils import check_cls_dataset

    assert check(animals, near=False, sample=0).names == check_cls_dataset(str(animals))["names"]


def test_a_missing_validation_folder_is_an_error_unless_there_is_a_test_folder(animals: Path) -> None:
    (animals / "val").rename(animals / "test")
    assert places(animals) == set()
    (animals / "test").rename(animals / "other")
    assert places(animals) == {("path-missing", "val")}


def test_a_file_is_no_folder_of_classes(animals: Path) -> None:
    (animals / "data.yaml").write_text("train: train\nval: val\nnames: [cat, dog]\n")
    with pytest.raises(InvalidCallError, match="is a file"):
        check(animals / "data.yaml", task="classify")
