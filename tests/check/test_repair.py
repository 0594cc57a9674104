"""The cleaned copy: without errors, and the original as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from check.planted import BOX, LINES, Planted, clean, encoded, picture, plant_arrays, plant_images, plant_labels

from yolo_stable.check import Severity, check, run_check
from yolo_stable.check.opening import open_path
from yolo_stable.check.repair import _Names, repair
from yolo_stable.errors import InvalidCallError


def state(root: Path) -> dict[str, tuple[str, int]]:
    """Return content and time of every file."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def spoilt(tmp_path: Path) -> Planted:
    data = clean(tmp_path / "data")
    plant_images(data)
    plant_arrays(data)
    plant_labels(data)
    data.add("leak", (data.root / "images/train/clean-train-0.png").read_bytes(), LINES, split="val")
    data.add("copy", (data.root / "images/train/clean-train-1.png").read_bytes(), LINES)
    return data


class TestCopy:
    def test_it_has_no_errors_and_the_original_is_untouched(self, spoilt: Planted, tmp_path: Path) -> None:
        before = state(spoilt.root)
        report = check(spoilt.root, near=False, sample=0)
        done = repair(report, tmp_path / "out")
        assert state(spoilt.root) == before
        again = check(tmp_path / "out", sample=8)
        assert [again.one_line(f) for f in again.findings if f.severity is Severity.ERROR] == []
        assert again.total == done.copied
        listed = {image for images in report.images.values() for image in images}
        assert again.total + len([path for path, _ in done.left_out if path in listed]) == report.total
        left = {finding.rule.id for finding in again.findings}
        assert left <= {
            *("image-grey", "image-huge", "image-aspect", "image-constant"),
            *("label-missing", "box-subpixel", "box-two-classes", "duplicate", "npy-picture"),
        }

    def test_images_are_upright_8_bit_rgb_with_the_right_ending(self, spoilt: Planted, tmp_path: Path) -> None:
        repair(check(spoilt.root, near=False, sample=0), tmp_path / "out")
        folder = tmp_path / "out/images/train"
        turned = open_path(str(folder / "turned.jpg"))
        assert (turned.size, turned.getexif().get(274)) == ((64, 96), None)
        assert {open_path(str(folder / name)).mode for name in ("cmyk.jpg", "deep.png", "alpha.png", "float.tiff")} == {
            "RGB"
        }
        assert open_path(str(folder / "named.png")).format == "PNG"
        deep = np.asarray(open_path(str(folder / "deep.png"))).astype(int)
        assert np.abs(deep - picture(1008)[..., ::-1]).max() <= 1
        assert (folder / "clean-train-2.png").read_bytes() == (
            spoilt.root / "images/train/clean-train-2.png"
        ).read_bytes()

    def test_of_copies_in_two_splits_the_one_in_validation_stays_and_in_one_split_both(
        self, spoilt: Planted, tmp_path: Path
    ) -> None:
        repair(check(spoilt.root, near=False, sample=0), tmp_path / "out")
        out = tmp_path / "out/images"
        assert not (out / "train/clean-train-0.png").exists()
        assert (out / "val/leak.png").exists()
        assert [(out / "train" / name).exists() for name in ("clean-train-1.png", "copy.png")] == [True, True]

    def test_labels_lose_what_describes_nothing_and_boxes_are_clipped(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        data.add("some", labels=[BOX, "", "1 0.5 0.5 0 0.2", BOX, "1 0.95 0.5 0.2 0.2", "1 0.123456789 0.5 0.1 0.1"])
        repair(check(data.root, sample=0), tmp_path / "out")
        lines = (tmp_path / "out/labels/train/some.txt").read_text().splitlines()
        assert lines == [BOX, "1 0.925 0.5 0.15 0.2", "1 0.123456789 0.5 0.1 0.1"]
        changes = json.loads((tmp_path / "out/changes.json").read_text())
        path = str(data.root / "labels/train/some.txt")
        assert changes["dropped"] == [[path, 3, "box-zero-area"], [path, 4, "box-duplicate"]]
        assert changes["clipped"] == [[path, 5]]

    def test_an_image_whose_object_would_become_background_is_left_out(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        image = data.line("label-parse", BOX, "1 0.5 abc 0.1 0.1")
        done = repair(check(data.root, sample=0), tmp_path / "out")
        assert done.left_out == [(str(image), "label-parse")]

    def test_the_description_goes_along(self, tmp_path: Path) -> None:
        pose = "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 1"
        data = clean(tmp_path / "data", lines=[pose], kpt_shape=[2, 3], flip_idx=[1, 0], names=["person"])
        repair(check(data.root, sample=0), tmp_path / "out")
        content = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
        assert content == {
            "train": "images/train",
            "val": "images/val",
            "names": {0: "person"},
            "kpt_shape": [2, 3],
            "flip_idx": [1, 0],
        }
        assert check(tmp_path / "out").findings == []

    def test_folders_of_classes_stay_folders_of_classes(self, tmp_path: Path) -> None:
        for split in ("train", "val"):
            for seed, name in enumerate(("cat", "dog")):
                folder = tmp_path / "data" / split / name / "deep"
                folder.mkdir(parents=True)
                for number in range(2):
                    seed += 10
                    (folder / f"{number}.png").write_bytes(encoded(picture(seed + len(split))))
        (tmp_path / "data/train/cat/broken.png").write_bytes(b"no")
        done = repair(check(tmp_path / "data", sample=0), tmp_path / "out")
        assert [Path(path).name for path, _ in done.left_out] == ["broken.png"]
        report = check(tmp_path / "out", sample=4)
        assert (report.task, report.total, list(report.findings)) == ("classify", 8, [])


class TestTarget:
    def test_a_folder_that_is_not_empty_is_refused(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine.txt").write_text("mine")
        with pytest.raises(InvalidCallError, match="is not empty"):
            run_check(str(data.root), fix=tmp_path / "out", sample=0)

    @pytest.mark.parametrize("inside", ["out", "images/train/out", "."])
    def test_a_folder_inside_the_data_is_refused_before_anything_is_done(self, tmp_path: Path, inside: str) -> None:
        data = clean(tmp_path / "data")
        before = state(data.root)
        with pytest.raises(InvalidCallError, match=r"lies inside the data|is not empty"):
            run_check(str(data.root), fix=data.root / inside, sample=0)
        assert state(data.root) == before

    def test_a_link_that_leads_into_the_data_is_refused(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        (tmp_path / "link").symlink_to(data.root / "images")
        with pytest.raises(InvalidCallError, match="lies inside the data"):
            run_check(str(data.root), fix=tmp_path / "link/out", sample=0)


class TestWhatIsHonestStays:
    def test_classes_are_renumbered_in_the_labels_too(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data", ["2 0.5 0.5 0.4 0.4", "5.0 0.3 0.3 0.2 0.2"], names={2: "cat", 5: "dog"})
        done = repair(check(data.root, sample=0), tmp_path / "out")
        assert done.renumbered == [(2, 0, "cat"), (5, 1, "dog")]
        assert yaml.safe_load((tmp_path / "out/data.yaml").read_text())["names"] == {0: "cat", 1: "dog"}
        lines = (tmp_path / "out/labels/train/clean-train-0.txt").read_text().splitlines()
        assert lines == ["0 0.5 0.5 0.4 0.4", "1 0.3 0.3 0.2 0.2"]

    @pytest.mark.parametrize(
        "names", [{1: "cat", 2: "dog"}, {"cat": 0, "dog": 1}, {0: "cat", "0": "dog"}, {0: "cat", 1 << 30: "dog"}]
    )
    def test_names_that_cannot_be_told_are_refused(self, tmp_path: Path, names: dict[object, object]) -> None:
        data = clean(tmp_path / "data", names=names)  # the labels say 0 and 1
        with pytest.raises(InvalidCallError, match=r"which (names|class)"):
            repair(check(data.root, sample=0), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_an_image_is_listed_as_often_as_it_was(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data", train="train.txt")
        names = ["clean-train-0.png"] * 3 + ["clean-train-1.png"]
        paths = [f"./images/train/{name}" for name in names[:2]] + [
            f"{data.root}/images/train/{name}" for name in names[2:]
        ]
        (data.root / "train.txt").write_text("\n".join(paths))
        report = check(data.root, sample=0)
        assert {finding.rule.id for finding in report.findings} == {"listed-again"}
        done = repair(report, tmp_path / "out")
        assert (done.copied, check(tmp_path / "out", sample=0).images["train"]) == (
            5,
            [str(tmp_path / "out/images/train" / name) for name in names],
        )

    def test_of_equal_images_with_other_labels_none_goes_and_it_is_said(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        file = (data.root / "images/train/clean-train-0.png").read_bytes()
        data.image("duplicate-labels", "other", file, labels=["1 0.5 0.5 0.4 0.4"])
        data.image("duplicate-labels", "none", file, labels=None, split="val")
        report = check(data.root, sample=0)
        assert {f.path for f in report.findings if f.rule.id == "duplicate-labels"} == {p for _, p, _ in data.expected}
        done = repair(report, tmp_path / "out")
        assert (done.copied, done.left_out) == (11, [])
        assert {rule for _, rule, _ in done.unmended} == {"duplicate-labels"}

    def test_the_same_labels_in_another_order_do_not_contradict(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        file = (data.root / "images/train/clean-train-0.png").read_bytes()
        data.add("copy", file, labels=["1 .3 0.30 0.2 0.2", *LINES])
        assert {f.rule.id for f in check(data.root, sample=0).findings} == {"duplicate", "box-duplicate"}

    def test_training_is_not_emptied_of_what_validation_has_too(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        for number in range(6):
            file = (data.root / f"images/train/clean-train-{number}.png").read_bytes()
            data.add(f"again-{number}", file, LINES, split="val")
        done = repair(check(data.root, sample=0), tmp_path / "out")
        assert (done.copied, done.left_out) == (15, [])
        assert {rule for _, rule, _ in done.unmended} == {"duplicate-across-splits"}

    def test_a_class_whose_last_image_is_in_validation_too_is_not_taken_out(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data", lines=[BOX])
        lone = data.add("lone", labels=["1 0.5 0.5 0.4 0.4"])
        data.add("leak", lone.read_bytes(), ["1 0.5 0.5 0.4 0.4"], split="val")
        done = repair(check(data.root, sample=0), tmp_path / "out")
        assert (done.left_out, [why for _, _, why in done.unmended]) == (
            [],
            ["without the training images that are in another split too, training would lose b"],
        )

    def test_a_split_that_would_be_empty_is_refused(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        for path in (data.root / "images/val").iterdir():
            path.write_bytes(b"")
        with pytest.raises(InvalidCallError, match=r"val would be empty \(image-empty\)"):
            repair(check(data.root, sample=0), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_pose_labels_taken_as_boxes_keep_their_keypoints(self, tmp_path: Path) -> None:
        line = "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 1"
        data = clean(tmp_path / "data", lines=[line], kpt_shape=[2, 3], names=["person"])
        repair(check(data.root, task="detect", sample=0), tmp_path / "out")
        assert (tmp_path / "out/labels/train/clean-train-0.txt").read_text() == f"{line}\n"

    def test_a_pose_whose_box_is_clipped_keeps_places_and_visibilities(self, tmp_path: Path) -> None:
        inside = "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 1"
        data = clean(tmp_path / "data", lines=[inside], kpt_shape=[2, 3], flip_idx=[1, 0], names=["person"])
        data.add("edge", labels=["0 0.95 0.5 0.2 0.2 0.9 0.4 2 0.96 0.6 0", inside])
        done = repair(check(data.root, sample=0), tmp_path / "out")
        lines = (tmp_path / "out/labels/train/edge.txt").read_text().splitlines()
        assert lines == ["0 0.925 0.5 0.15 0.2 0.9 0.4 2 0.96 0.6 0", inside]
        assert (done.left_out, len(done.clipped)) == ([], 1)

    def test_corners_of_a_rotated_box_that_leave_the_image_stay(self, tmp_path: Path) -> None:
        line = "0 0.5 -0.005 0.8 0.3 0.5 0.6 0.2 0.3"
        data = clean(tmp_path / "data", lines=[line])
        repair(check(data.root, task="obb", sample=0), tmp_path / "out")
        assert (tmp_path / "out/labels/train/clean-train-0.txt").read_text() == f"{line}\n"

    def test_an_array_that_training_reads_in_place_of_an_image_goes_along(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        image = data.root / "images/train/clean-train-0.png"
        np.save(image.with_suffix(".npy"), picture(77))
        repair(check(data.root, sample=0), tmp_path / "out")
        assert np.array_equal(np.load(tmp_path / "out/images/train/clean-train-0.npy"), picture(77))

    def test_names_that_differ_only_in_capitals_are_told_apart(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        data.add("CLEAN-train-0.PNG", labels=[BOX])
        done = repair(check(data.root, sample=0), tmp_path / "out")
        names = [path.name.lower() for path in (tmp_path / "out/images/train").iterdir()]
        assert (done.copied, len(names), len(set(names))) == (10, 7, 7)

    def test_what_is_transparent_is_shown_as_training_shows_it(self, tmp_path: Path) -> None:
        from ultralytics.utils.patches import imread

        data = clean(tmp_path / "data")
        image = data.add("alpha", encoded(np.dstack([picture(1), picture(2)[..., 0]])))
        repair(check(data.root, sample=0), tmp_path / "out")
        copied, original = imread(str(tmp_path / "out/images/train/alpha.png")), imread(str(image))
        assert copied is not None
        assert original is not None
        assert np.array_equal(copied, original)

    def test_one_split_is_no_data_set(self, tmp_path: Path) -> None:
        data = clean(tmp_path / "data")
        with pytest.raises(InvalidCallError, match="whole data sets"):
            run_check(str(data.root), split="train", fix=tmp_path / "out", sample=0)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_class_whose_last_image_in_a_split_is_left_out_is_told(tmp_path: Path, split: str) -> None:
    data = clean(tmp_path / "data", lines=[BOX], names=["a", "b"])
    other = "val" if split == "train" else "train"
    data.add("only", b"no image", labels=["1 0.5 0.5 0.4 0.4"], split=split)
    data.add("another", labels=["1 0.5 0.5 0.4 0.4"], split=other)
    done = repair(check(data.root, near=False, sample=0), tmp_path / "out")
    assert done.unmended == [("b", "class-unused", f"the last images of this class in {split} are left out")]


def test_an_outline_that_leaves_the_image_a_little_ends_at_its_edge(tmp_path: Path) -> None:
    data = clean(tmp_path / "data", lines=["0 0.2 0.8 0.2 0.4 0.5 0.1 0.8 0.4 0.8 0.8"])
    data.add("some", labels=["0 -0.005 0.2 0.5 0.2 1.005 0.8 0.5 0.9 0.3 0.7"])
    repair(check(data.root, near=False, sample=0), tmp_path / "out")
    assert (tmp_path / "out/labels/train/some.txt").read_text() == "0 0 0.2 0.5 0.2 1 0.8 0.5 0.9 0.3 0.7\n"


def test_images_of_one_name_get_numbers(tmp_path: Path) -> None:
    names = _Names(tmp_path)
    placed = [names.place(f"{folder}/{name}.png", tmp_path).name for folder, name in zip("xyzw", "aaAb", strict=True)]
    assert placed == ["a.png", "a-2.png", "A-3.png", "b.png"]
    assert names.place("x/a.png", tmp_path / "other").name == "a.png"
