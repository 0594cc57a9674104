"""Data sets for classification: folders of classes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from check.planted import encoded, picture

from yolo_stable.check import Severity, check, run_check
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


def severities(root: Path) -> dict[tuple[str, str], Severity]:
    return {(f.rule.id, str(Path(f.path).relative_to(root))): f.severity for f in check(root, near=False).findings}


class TestOtherFolders:
    @pytest.mark.parametrize("name", [".ipynb_checkpoints", "__MACOSX", "@eaDir"])
    def test_one_that_a_tool_left_is_no_class(self, animals: Path, name: str) -> None:
        from ultralytics.data.utils import check_cls_dataset

        (animals / "train" / name).mkdir()
        assert name in check_cls_dataset(str(animals))["names"].values()
        assert severities(animals)["class-hidden", f"train/{name}"] is Severity.ERROR
        (animals / "train" / name).rename(animals / "val" / name)
        assert severities(animals) == {("class-hidden", f"val/{name}"): Severity.WARNING}

    def test_images_of_a_class_that_training_lacks_are_left_out(self, animals: Path) -> None:
        from ultralytics.cfg import get_cfg
        from ultralytics.data.dataset import ClassificationDataset

        (animals / "val/bird").mkdir()
        assert severities(animals) == {("class-folders", "val"): Severity.WARNING}
        (animals / "val/dog/1.png").rename(animals / "val/bird/1.png")
        assert severities(animals) == {("class-folders", "val"): Severity.ERROR}
        args = get_cfg(overrides={"task": "classify"})
        taken = ClassificationDataset(str(animals / "val"), args, names={0: "cat", 1: "dog"})  # pyright: ignore[reportArgumentType]
        assert sorted(sample[1] for sample in taken.samples) == [0, 0, 1]

    def test_a_class_that_validation_lacks_is_not_measured(self, animals: Path) -> None:
        shutil.rmtree(animals / "val/cat")
        assert severities(animals) == {("class-folders", "val"): Severity.WARNING}

    def test_names_of_which_none_is_known_are_matched_by_their_order(self, animals: Path) -> None:
        (animals / "val/cat").rename(animals / "val/Cats")
        (animals / "val/dog").rename(animals / "val/Dogs")
        assert severities(animals) == {("class-folders", "val"): Severity.ERROR}

    def test_names_that_hardly_differ_are_told(self, animals: Path) -> None:
        for split in ("train", "val"):
            (animals / split / "Cat").mkdir()
            name = "3.png" if split == "train" else "1.png"
            (animals / split / "cat" / name).rename(animals / split / "Cat" / name)
        assert severities(animals) == {("names-twice", "train/cat"): Severity.WARNING}


class TestUnsplit:
    def test_ultralytics_splits_it_itself(self, animals: Path, tmp_path: Path) -> None:
        root = animals / "train"  # class folders, and no folder train in it
        report = check(root, task="classify", near=False, sample=0)
        assert [(f.rule.id, f.severity) for f in report.findings] == [("split-made", Severity.INFO)]
        assert (report.names, len(report.images["train"])) == ({0: "cat", 1: "dog"}, 8)

    def test_a_class_with_one_image_has_none_for_training(self, animals: Path) -> None:
        from ultralytics.data.utils import check_cls_dataset

        root = animals / "train"
        for number in (1, 2, 3):
            (root / f"dog/{number}.png").unlink()
        report = check(root, task="classify", near=False, sample=0)
        assert ("split-made", str(root / "dog"), Severity.WARNING) in {
            (f.rule.id, f.path, f.severity) for f in report.findings
        }
        made = check_cls_dataset(str(root))
        assert list((made["train"] / "dog").iterdir()) == []

    def test_no_copy_is_made_of_it(self, animals: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidCallError, match="not split into train and val"):
            run_check(str(animals / "train"), task="classify", sample=0, fix=tmp_path.parent / "out-of-it")

    def test_folders_within_a_class_are_one_class(self, animals: Path) -> None:
        """What an archive brings: the splits one folder too deep."""
        (animals / "archive").mkdir()
        for split in ("train", "val"):
            (animals / split).rename(animals / "archive" / split)
        assert {("split-made", Severity.WARNING), ("class-folders", Severity.WARNING)} <= levels(animals)

    def test_one_image_of_each_class_leaves_none_for_training(self, tmp_path: Path) -> None:
        for n, name in enumerate(("cat", "dog")):
            (tmp_path / "set" / name).mkdir(parents=True)
            (tmp_path / "set" / name / "0.png").write_bytes(encoded(picture(n)))
        assert ("split-empty", Severity.ERROR) in levels(tmp_path / "set")

    def test_what_an_earlier_splitting_has_left_takes_part(self, tmp_path: Path) -> None:
        for n in range(8):
            path = tmp_path / "set" / "cd"[n % 2] / f"{n}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(n)))
        made = tmp_path / "set_split/train/c/0.png"
        made.parent.mkdir(parents=True)
        made.write_bytes((tmp_path / "set/c/0.png").read_bytes())
        assert levels(tmp_path / "set") == {("split-made", Severity.INFO)}
        made.rename(made.with_name("gone.png"))
        assert levels(tmp_path / "set") == {("split-made", Severity.INFO), ("split-made", Severity.WARNING)}


def test_one_class_teaches_nothing(animals: Path) -> None:
    for split in ("train", "val"):
        for folder in sorted((animals / split).iterdir())[1:]:
            shutil.rmtree(folder)
    assert ("class-folders", Severity.WARNING) in levels(animals)


def test_notes_of_macos_are_no_images(animals: Path) -> None:
    folder = sorted((animals / "train").iterdir())[0]
    (folder / "._0.png").write_bytes(b"\0\5\x16\7" * 20)
    assert levels(animals) == {("image-unreadable", Severity.WARNING)}


def levels(root: Path) -> set[tuple[str, Severity]]:
    return {(f.rule.id, f.severity) for f in check(root, task="classify", sample=0).findings}
