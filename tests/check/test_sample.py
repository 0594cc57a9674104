"""What comes out of the augmentation is judged as a training would meet it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from check.planted import clean, found_in

from yolo_stable.check import check
from yolo_stable.check.place import read_layout
from yolo_stable.check.sample import check_sample

GOOD = {"img": torch.zeros(3, 4, 4), "bboxes": torch.tensor([[0.5, 0.5, 0.2, 0.2]]), "cls": torch.tensor([[1.0]])}


class Faulty:
    """A data set that yields what it is told to; an exception is raised."""

    def __init__(self, folder: str, item: dict[str, Any] | Exception) -> None:
        self.im_files = sorted(map(str, Path(folder, "images").iterdir()))
        self.item = item

    def __len__(self) -> int:
        return len(self.im_files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if isinstance(self.item, Exception):
            raise self.item
        return {**self.item, "im_file": self.im_files[index]}


@pytest.mark.parametrize(
    ("item", "rule"),
    [
        (GOOD, None),
        ({**GOOD, "img": torch.full((3, 4, 4), torch.nan)}, "augment-not-finite"),
        ({**GOOD, "bboxes": torch.tensor([[0.5, 0.5, 0.0, 0.2]])}, "augment-box"),
        ({**GOOD, "bboxes": torch.tensor([[0.5, 1.2, 0.1, 0.2]])}, "augment-box"),
        ({**GOOD, "bboxes": torch.tensor([[0.5, 0.5, torch.nan, 0.2]])}, "augment-box"),
        ({**GOOD, "cls": torch.tensor([[2.0]])}, "augment-box"),
        (ValueError("no such thing"), "augment-failed"),
    ],
)
def test_each_fault_is_told_with_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, item: dict[str, Any] | Exception, rule: str | None
) -> None:
    data = clean(tmp_path)
    monkeypatch.setattr("yolo_stable.check.sample._detected", lambda layout, folder: Faulty(folder, item))
    found = found_in(check(data.root, near=False, sample=2))
    images = [str(data.root / f"images/train/clean-train-{number}.png") for number in (0, 3)]
    assert found == ({(rule, image, None) for image in images} if rule else set())


def test_a_pipeline_that_cannot_be_built_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no pipeline today")

    data = clean(tmp_path)
    monkeypatch.setattr("yolo_stable.check.sample._detected", fail)
    assert found_in(check(data.root, near=False, sample=4)) == {("augment-failed", str(data.root / "data.yaml"), None)}


def test_nothing_to_draw_from_is_no_finding(tmp_path: Path) -> None:
    layout = read_layout(str(clean(tmp_path).root))
    layout.task = "detect"
    assert check_sample(layout, {"train": []}, [], 8) == []


@pytest.mark.parametrize(
    ("change", "drawn"),
    [({}, True), ({"names": {1: "a", 3: "b"}}, False), ({"names": {}}, False), ({"task": None}, False)],
)
def test_images_of_a_description_that_ultralytics_would_refuse_are_not_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], drawn: bool
) -> None:
    data, asked = clean(tmp_path), []
    layout = read_layout(str(data.root))
    vars(layout).update({"task": "detect", **change})
    monkeypatch.setattr(
        "yolo_stable.check.sample._detected",
        lambda *_: asked.append(1) or Faulty(str(tmp_path / "images/train"), GOOD),
    )
    images = sorted(map(str, (data.root / "images/train").iterdir()))
    check_sample(layout, {"train": images}, [], 8)
    assert bool(asked) is drawn
