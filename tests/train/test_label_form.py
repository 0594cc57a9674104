from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.train.label_form import LOOKED_AT, require_fitting_labels

BOX, OUTLINE = "0 0.5 0.5 0.2 0.2", "0 0.1 0.1 0.3 0.1 0.3 0.3"


def data_set(folder: Path, *labels: str) -> dict[str, Any]:
    for place in ("images", "labels"):
        (folder / place).mkdir()
    for number, text in enumerate(labels):
        (folder / "images" / f"{number}.jpg").touch()
        (folder / "labels" / f"{number}.txt").write_text(text)
    return {"train": str(folder / "images")}


@pytest.mark.parametrize("task", ["segment", "obb", "semantic"])
def test_boxes_alone_are_refused(tmp_path: Path, task: str) -> None:
    found = data_set(tmp_path, f"{BOX}\n{BOX}\n", "", BOX)
    with pytest.raises(
        InvalidCallError, match=rf"d\.yaml: its labels are boxes, and a model for task={task} needs .* 2 label"
    ):
        require_fitting_labels("d.yaml", found, task)


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("detect", [BOX]),
        ("pose", [BOX]),
        ("classify", [BOX]),
        ("segment", [OUTLINE]),
        ("segment", [BOX, f"{BOX}\n{OUTLINE}"]),
        ("obb", ["0 0.1 0.1 0.3 0.1 0.3 0.3 0.1 0.3"]),
        ("segment", ["", "\n"]),
        ("segment", []),
    ],
)
def test_what_may_be_right_is_let_through(tmp_path: Path, task: str, labels: list[str]) -> None:
    require_fitting_labels("d.yaml", data_set(tmp_path, *labels), task)


def test_a_large_data_set_is_looked_at_in_part(tmp_path: Path) -> None:
    found = data_set(tmp_path, *[BOX] * (LOOKED_AT + 10))
    with pytest.raises(InvalidCallError, match=f"looked at: {LOOKED_AT} label files"):
        require_fitting_labels("d.yaml", {"train": [found["train"]]}, "segment")


def test_a_place_that_cannot_be_looked_at_is_let_through(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.jpg\n")
    for train in (None, "nowhere", str(tmp_path / "list.txt")):
        require_fitting_labels("d.yaml", {"train": train}, "segment")


@pytest.mark.parametrize(
    ("task", "folder", "found"), [("semantic", "masks", {"masks_dir": "masks"}), ("depth", "depth", {})]
)
def test_images_without_any_map_are_refused_and_one_map_is_enough(
    tmp_path: Path, task: str, folder: str, found: dict[str, Any]
) -> None:
    found = {**data_set(tmp_path, BOX, BOX), **found}
    with pytest.raises(InvalidCallError, match=rf"d\.yaml: no image has a .*{folder}.\d\.png\. Put them there"):
        require_fitting_labels("d.yaml", found, task)
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "1.png").touch()
    require_fitting_labels("d.yaml", found, task)


def test_a_depth_map_may_be_an_array(tmp_path: Path) -> None:
    found = data_set(tmp_path, BOX)
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "0.npy").touch()
    require_fitting_labels("d.yaml", found, "depth")
