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


@pytest.mark.parametrize("task", ["segment", "obb"])
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
