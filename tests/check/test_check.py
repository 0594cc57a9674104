"""A data set with one instance of every defect: each is found at its path and line, and nothing else; a clean one is clean."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from check.planted import (
    BOX,
    LINES,
    Planted,
    clean,
    encoded,
    found_in,
    picture,
    plant_arrays,
    plant_images,
    plant_labels,
)
from PIL import Image

from yolo_stable.check import RULES, Severity, check
from yolo_stable.check.command import run_check
from yolo_stable.check.files import label_path
from yolo_stable.data.builtin import make
from yolo_stable.errors import InvalidCallError


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    data = clean(tmp_path_factory.mktemp("spoilt"))
    plant_images(data)
    plant_arrays(data)
    plant_labels(data)
    data.write()
    return data


class TestCleanTwin:
    @pytest.mark.parametrize("near", [True, False])
    def test_nothing_is_invented(self, tmp_path: Path, near: bool) -> None:
        report = check(clean(tmp_path).root, near=near)
        assert (list(report.findings), report.exit_code, report.total, report.task) == ([], 0, 9, "detect")

    def test_the_built_in_data_sets_are_clean(self, shapes: object) -> None:
        for task in ("detect", "segment", "pose", "obb", "classify"):
            report = check(shapes(task), sample=4, near=False)  # pyright: ignore[reportCallIssue]
            assert (report.task, list(report.findings)) == (task, [])

    def test_nothing_is_written_and_no_random_number_is_used_up(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        states = random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()
        check(data.root, sample=8)
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        assert (random.getstate(), repr(np.random.get_state()), torch.get_rng_state().tolist()) == states


class TestEveryDefect:
    @pytest.mark.parametrize("near", [True, False])
    def test_each_is_found_at_its_place_and_nothing_else(self, spoilt: Planted, near: bool) -> None:
        report = check(spoilt.root, near=near, sample=0)
        found = found_in(report)
        assert len(found) == len(report.findings)
        unseen = {
            place for place in spoilt.expected if place[0] == "npy-picture" and not near
        }  # its image is not decoded
        assert found - spoilt.expected == set()
        assert spoilt.expected - found == unseen

    def test_each_message_says_value_and_limit_and_each_rule_why_and_what_to_do(self, spoilt: Planted) -> None:
        report = check(spoilt.root, near=False, sample=0)
        assert all(finding.message and finding.rule.why and finding.rule.fix for finding in report.findings)
        by_rule = {finding.rule.id: finding.message for finding in report.findings}
        assert by_rule["class-range"].startswith("class ")
        assert "allowed: 0 to 1" in by_rule["class-range"]
        assert "9 pixels" in by_rule["image-small"].replace(" x 9", " 9")

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its files are left open
    def test_what_ultralytics_leaves_out_is_an_error(self, spoilt: Planted, tmp_path: Path) -> None:
        """On a copy, as Ultralytics rewrites damaged JPEGs where they lie."""
        from ultralytics.data.utils import verify_image_label

        copy = tmp_path / "copy"
        shutil.copytree(spoilt.root, copy)
        report = check(copy, near=False, sample=0)
        errors = {finding.image or finding.path for finding in report.findings if finding.severity is Severity.ERROR}
        errors |= {finding.path for finding in report.findings if finding.severity is Severity.ERROR}
        dropped = {
            image
            for image in report.images["train"]
            if verify_image_label((image, label_path(image), "", False, 2, 0, 0, False))[0] is None
        }
        assert len(dropped) > 15
        assert dropped - errors == set()

    def test_slight_excess_is_a_warning_where_ultralytics_takes_it(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        data.line("coordinate-above-one", BOX, "1 0.5 0.5 1.005 0.2")
        report = check(data.root, near=False, sample=0)
        assert {finding.severity for finding in report.findings} == {Severity.WARNING}
        assert report.exit_code == 0


class TestTogether:
    def test_copies_are_found_within_and_across_splits(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        first = data.root / "images/train/clean-train-0.png"
        data.image("duplicate", "copy", first.read_bytes(), labels=LINES)
        data.image("duplicate-across-splits", "leak", first.read_bytes(), split="val", labels=LINES)
        near = Image.open(data.root / "images/train/clean-train-1.png").resize((80, 56))
        small, frame = (encoded(np.asarray(near), "JPEG", quality=quality) for quality in (60, 70))
        data.image("near-duplicate", "small.jpg", small, labels=LINES)
        data.image("near-duplicate-across-splits", "frame.jpg", frame, labels=LINES, split="val")
        assert found_in(check(data.root)) == data.expected
        exact = {place for place in data.expected if not place[0].startswith("near")}
        assert found_in(check(data.root, near=False)) == exact

    def test_classes_that_are_unused_unseen_or_rare(self, tmp_path: Path) -> None:
        data = clean(tmp_path, lines=[BOX], names=["a", "b", "c", "d"])
        many = [f"0 {0.1 + 0.008 * i:.3f} 0.5 0.1 0.1" for i in range(100)]
        data.image("image-crowded", "crowd", labels=[*many, "3 0.5 0.2 0.1 0.1"])
        data.add("unseen", labels=["1 0.5 0.5 0.1 0.1"], split="val")
        path = data.write()
        data.expect("class-unseen", path, 5)
        data.expect("class-unused", path, 6)
        data.expect("class-imbalance", path, 7)
        data.expect("class-rare", path, 7)
        assert path.read_text().splitlines()[4] == "- b"
        assert found_in(check(data.root)) == data.expected

    def test_names_that_clash_on_other_systems_and_labels_that_two_images_share(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        data.add("Twin")
        data.image("case-clash", "twin")
        data.add("both.png")
        data.expect("label-shared", data.add("both.jpg", encoded(picture(500), "JPEG")))
        found = found_in(check(data.root))
        where = {(rule, Path(path).stem.lower()) for rule, path, _ in found}
        assert where == {("case-clash", "twin"), ("label-shared", "both")}

    @pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need rights on Windows")
    def test_links_that_lead_nowhere_or_back(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        folder = data.root / "images/train"
        for rule, name, target in (
            ("link-broken", "gone.png", "nowhere.png"),
            ("symlink-loop", "up", ".."),
            ("symlink-loop", "self", "self"),
        ):
            (folder / name).symlink_to(target)
            data.expect(rule, folder / name)
        report = check(data.root)
        assert found_in(report) == data.expected
        assert report.total == 9

    def test_a_set_without_any_label_is_said_once(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        shutil.rmtree(data.root / "labels")
        assert {rule for rule, _, _ in found_in(check(data.root, task="detect"))} == {"split-unlabelled"}


class TestAfterAugmentation:
    def test_nan_in_an_array_is_seen_as_training_would_see_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The rule for arrays is switched off, so that only the pipeline can find it."""
        data = clean(tmp_path)
        image = data.root / "images/train/clean-train-0.png"
        pixels = picture(1).astype(np.float32)
        pixels[:] = np.nan
        np.save(image.with_suffix(".npy"), pixels)
        monkeypatch.setattr("yolo_stable.check.scan.check_array", lambda *_: None)
        found = {rule for rule, _, _ in found_in(check(data.root, sample=8))}
        assert found & {"augment-not-finite", "augment-failed"}

    def test_an_image_with_an_error_is_not_drawn(self, tmp_path: Path) -> None:
        data = clean(tmp_path)
        data.line("class-range", BOX, "7 0.5 0.5 0.1 0.1")
        assert found_in(check(data.root, sample=8)) == data.expected


class TestCall:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"task": "detection"}, "Did you mean 'detect'"),
            ({"split": "valid"}, "train, val, test"),
            ({"workers": 0}, "workers=0"),
            ({"sample": -1}, "sample=-1"),
            ({"imgsz": 3}, "imgsz=3"),
            ({"limits": {"box-larg": 0.5}}, "Did you mean 'box-large'"),
            ({"limits": {"box-large": -1}}, "box-large=-1"),
        ],
    )
    def test_a_wrong_value_is_refused(self, tmp_path: Path, options: dict[str, str], said: str) -> None:
        with pytest.raises(InvalidCallError, match=said):
            check(clean(tmp_path).root, **options)  # pyright: ignore[reportArgumentType]

    @pytest.mark.parametrize("data", ["nowhere.yaml", "https://example.org/data.yaml", "data.zip"])
    def test_data_that_are_not_here_are_refused(self, data: str) -> None:
        with pytest.raises(InvalidCallError, match=data):
            check(data)

    def test_only_the_split_that_was_asked_for(self, tmp_path: Path) -> None:
        report = check(clean(tmp_path).root, split="val", sample=0)
        assert (list(report.images), list(report.findings)) == (["val"], [])


def test_every_rule_is_tested_here_or_beside() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert [rule for rule in RULES if f'"{rule}"' not in tests] == []


class TestRulesOfSplits:
    def test_a_test_split_that_is_not_there_does_not_stop_training(self, tmp_path: Path) -> None:
        data = clean(tmp_path, test="images/test")
        report = check(data.root, sample=0)
        assert [(f.rule.id, f.severity) for f in report.findings] == [("path-missing", Severity.WARNING)]

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_another_one_does(self, tmp_path: Path, split: str) -> None:
        data = clean(tmp_path, **{split: "images/nowhere"})
        assert ("path-missing", Severity.ERROR) in {
            (f.rule.id, f.severity) for f in check(data.root, sample=0).findings
        }

    def test_copies_in_validation_and_test_were_not_trained_on(self, tmp_path: Path) -> None:
        data = clean(tmp_path, test="images/test")
        for folder in ("images", "labels"):
            (tmp_path / folder / "test").mkdir()
        first = (tmp_path / "images/val/clean-val-0.png").read_bytes()
        data.image("duplicate-across-splits", "copy", first, labels=LINES, split="test")
        report = check(data.root, sample=0)
        assert (found_in(report), report.exit_code) == (data.expected, 0)

    def test_what_is_said_of_a_rule_is_true_of_every_split(self) -> None:
        told = {key: f"{rule.why} {rule.fix}" for key, rule in RULES.items()}
        assert [key for key, text in told.items() if "out of training" in text] == []


@pytest.mark.parametrize(("task", "folder", "what"), [("semantic", "masks", "masks"), ("depth", "depth", "depth maps")])
def test_of_a_data_set_with_a_label_for_each_pixel_the_images_are_checked(
    task: str, folder: str, what: str, tmp_path: Path
) -> None:
    data = make("shapes", task=task, train=6, val=3, imgsz=64, cache=tmp_path / "cache")
    for asked in (None, task):
        report = check(data, task=asked, near=False, workers=1)
        assert (report.task, report.exit_code) == (task, 0)
        assert {finding.rule.id for finding in report.findings} <= {"class-size"}
        assert f"9 images (train 6, val 3), {task}, whose {what} are not looked at: 0 errors" in report.verdict
    (data.parent / "images" / "train" / "000002.png").write_bytes(b"no picture")
    assert check(data, near=False, workers=1).exit_code == 1
    with pytest.raises(InvalidCallError, match=f"has {what}. Leave it out."):
        run_check(str(data), fix=tmp_path / "clean")


def test_the_polygons_of_a_semantic_data_set_are_checked_as_those_of_segments(tmp_path: Path) -> None:
    data = make("shapes", task="segment", train=6, val=3, imgsz=64, cache=tmp_path / "cache")
    (data.parent / "labels" / "train" / "000001.txt").write_text("9 0.1 0.1 0.5 0.1 0.5 0.5\n")
    report = check(data, task="semantic", near=False, workers=1)
    assert report.task == "segment"
    assert [finding.rule.id for finding in report.findings if finding.severity is Severity.ERROR] == ["class-range"]
