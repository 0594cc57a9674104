"""The cleaned copy: without errors, and the original as it was."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from dataset.planted import BOX, Planted, clean, encoded, picture, plant_arrays, plant_images, plant_labels

from yolo_stable.dataset import Severity, check, run_check
from yolo_stable.dataset.opening import open_path
from yolo_stable.dataset.repair import repair
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
    data.add("leak", (data.root / "images/train/clean-train-0.png").read_bytes(), split="val")
    data.add("copy", (data.root / "images/train/clean-train-1.png").read_bytes())
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
        assert again.total + len(done.left_out) == report.total
        left = {finding.rule.id for finding in again.findings}
        assert left <= {"image-grey", "image-huge", "image-aspect", "label-missing", "box-subpixel", "box-two-classes"}

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

    def test_of_copies_in_two_splits_the_one_in_validation_stays(self, spoilt: Planted, tmp_path: Path) -> None:
        repair(check(spoilt.root, near=False, sample=0), tmp_path / "out")
        out = tmp_path / "out/images"
        assert not (out / "train/clean-train-0.png").exists()
        assert (out / "val/leak.png").exists()
        assert len([name for name in ("clean-train-1.png", "copy.png") if (out / "train" / name).exists()]) == 1

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
