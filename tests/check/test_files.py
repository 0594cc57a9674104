"""Labels that are not read: beside images, where Ultralytics does not look."""

from __future__ import annotations

from pathlib import Path

import pytest
from check.planted import BOX, Planted, clean, encoded, found_in, picture

from yolo_stable.check import Severity, check, run_check
from yolo_stable.errors import InvalidCallError


def beside(data: Planted, name: str, text: str = f"{BOX}\n", labels: list[str] | None = None) -> Path:
    path = data.add(name, labels=labels).with_suffix(".txt")
    path.write_text(text)
    return path


def test_labels_beside_images_are_errors_as_their_objects_become_background(tmp_path: Path) -> None:
    data = clean(tmp_path / "data")
    data.expect("label-beside", beside(data, "one"))
    report = check(data.root, sample=0)
    assert (found_in(report), report.exit_code) == (data.expected, 1)
    assert f"Ultralytics reads {data.root}/labels/train/one.txt, which is missing" in report.findings[0].message


def test_beside_others_that_say_something_else_they_are_a_warning(tmp_path: Path) -> None:
    data = clean(tmp_path)
    data.expect("label-beside", beside(data, "other", labels=["1 0.5 0.5 0.4 0.4"]))
    beside(data, "same", "0 .50 .5 .4 .4", labels=[BOX])
    report = check(data.root, sample=0)
    assert ([f.severity for f in report.findings], found_in(report)) == ([Severity.WARNING], data.expected)


@pytest.mark.parametrize("text", ["a photo of a cat, taken at night", "", "1.5 cats and a dog\n"])
def test_a_text_that_is_no_label_is_none(tmp_path: Path, text: str) -> None:
    data = clean(tmp_path)
    beside(data, "caption", text)
    assert {finding.rule.id for finding in check(data.root, sample=0).findings} == {"label-missing"}


def test_in_a_folder_of_another_name_labels_belong_beside_images(tmp_path: Path) -> None:
    data = clean(tmp_path, train="photos", val="images/val")
    (tmp_path / "images/train").rename(tmp_path / "photos")
    for label in (tmp_path / "labels/train").iterdir():
        label.rename(tmp_path / "photos" / label.name)
    assert check(data.root, sample=0).findings == []


def test_a_copy_leaves_such_images_out_and_refuses_when_it_is_all_of_them(tmp_path: Path) -> None:
    data = clean(tmp_path / "data")
    beside(data, "one")
    assert run_check(str(data.root), sample=0, fix=tmp_path / "out") == 0
    assert not (tmp_path / "out/images/train/one.png").exists()
    for label in (data.root / "labels/val").iterdir():
        label.rename(data.root / "images/val" / label.name)
    with pytest.raises(InvalidCallError, match=r"val would be empty \(label-beside\)"):
        run_check(str(data.root), sample=0, fix=tmp_path / "other")


def test_labels_that_are_there_and_not_read_are_told(tmp_path: Path) -> None:
    data = clean(tmp_path)
    image = data.add("shouted", labels=None)
    data.label_of(image).with_suffix(".TXT").write_text(f"{BOX}\n")
    data.expect("label-orphan", data.label_of(image).with_suffix(".TXT"))
    data.expect("label-missing", image)
    for name, make in (("folder", Path.mkdir), ("link", lambda path: path.symlink_to("nowhere"))):
        image = data.add(name, labels=None)
        make(data.label_of(image))
        data.expect("label-missing", image)
    report = check(data.root, sample=0)
    assert found_in(report) == data.expected
    missing = {Path(f.path).stem: f.severity for f in report.findings if f.rule.id == "label-missing"}
    assert missing == {"shouted": Severity.INFO, "folder": Severity.WARNING, "link": Severity.WARNING}


def test_a_folder_with_the_name_of_an_image_is_read_through_and_told(tmp_path: Path) -> None:
    data = clean(tmp_path)
    inside = data.root / "images/train/scan.png/page.png"
    inside.parent.mkdir()
    inside.write_bytes(encoded(picture(500)))
    (data.root / "labels/train/scan.png").mkdir()
    (data.root / "labels/train/scan.png/page.txt").write_text(f"{BOX}\n")
    report = check(data.root, sample=0)
    assert str(inside) in report.images["train"]
    assert [(f.rule.id, f.path, f.severity) for f in report.findings] == [
        ("image-unreadable", str(inside.parent), Severity.WARNING)
    ]


class TestLabelsOfTheNameOfAnImageThatHasNone:
    def test_in_a_folder_where_they_are_not_read_they_are_found(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        image = data.add("deep", labels=None)
        deeper = image.parent / "cam1" / "deep.png"
        deeper.parent.mkdir()
        image.rename(deeper)
        data.expect("label-missing", deeper)
        for place in ("", "train/", "train/job_2/"):
            path = tmp_path / "labels" / place / "deep.txt"
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"{BOX}\n")
            data.expect("label-elsewhere", path)
        data.expect("label-orphan", tmp_path / "labels" / "train" / "deep.txt")
        report = check(data.root, sample=0)
        assert found_in(report) == data.expected
        (told, *_) = [finding for finding in report.findings if finding.rule.id == "label-elsewhere"]
        assert told.image == str(deeper)
        assert told.message.endswith(f"which lacks labels; Ultralytics reads {tmp_path}/labels/train/cam1/deep.txt")

    def test_labels_of_another_image_of_the_same_name_are_those_of_that_one(self, tmp_path: Path) -> None:
        """Two cameras number alike; the one sees nothing here, the other is not listed, or is."""
        data = clean(tmp_path)
        data.expect("label-missing", data.add("0001", labels=None))
        for folder in ("other", "val"):
            (tmp_path / "images" / folder).mkdir(exist_ok=True)
            (tmp_path / "labels" / folder).mkdir(exist_ok=True)
            (tmp_path / "images" / folder / "0001.png").write_bytes(encoded(picture(len(folder) + 50)))
            (tmp_path / "labels" / folder / "0001.txt").write_text(f"{BOX}\n")
        assert found_in(check(data.root, sample=0)) == data.expected

    def test_of_two_images_that_it_may_belong_to_none_is_named(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        for split in ("train", "val"):
            data.expect("label-missing", data.add("twice", labels=None, split=split))
        (tmp_path / "labels" / "twice.txt").write_text(f"{BOX}\n")
        assert found_in(check(data.root, sample=0)) == data.expected
