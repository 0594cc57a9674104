"""Contradicting labels on copies of one picture: told in the coordinates of the copy, and nothing honest is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from check.planted import Planted, encoded
from check.test_near import KINDS, jpeg, photograph
from PIL import Image

from yolo_stable.check import check

LABELS = ["0 0.3 0.4 0.2 0.3", "1 0.7 0.6 0.3 0.2"]
TURNED = {
    "a mirror": ["0 0.7 0.4 0.2 0.3", "1 0.3 0.6 0.3 0.2"],
    "a quarter turn": ["0 0.4 0.7 0.3 0.2", "1 0.6 0.3 0.2 0.3"],
}
"""The labels where these kinds of copies have them."""


def cut(labels: list[str], share: float) -> list[str]:
    """Return labels where a crop by this share of each side has them."""
    rows = [[float(word) for word in line.split()] for line in labels]
    whole = 1 - 2 * share
    return [f"{c:g} {(x - share) / whole} {(y - share) / whole} {w / whole} {h / whole}" for c, x, y, w, h in rows]


def told(root: Path, kind: str, labels: list[str] | None, original: list[str] = LABELS) -> list[str]:
    """Return what is said of a copy with these labels."""
    data = Planted(root, names=["cat", "dog"])
    image = photograph(3)
    data.add("a.png", encoded(np.asarray(image)), original)
    data.add("b.jpg", KINDS[kind](image), labels, split="val")
    found = [f for f in check(data.write()).findings if f.rule.id == "near-duplicate-labels"]
    assert all((Path(f.image).name, f.severity.value) == ("b.jpg", "warning") for f in found)
    return [finding.message.split("other labels: ")[-1] for finding in found]


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("another encoding", LABELS),
        ("another size", [LABELS[1], LABELS[0]]),
        ("a blur", ["0 0.31 0.41 0.21 0.28", "1 0.69 0.6 0.28 0.22"]),  # drawn by somebody else
        ("a mirror", TURNED["a mirror"]),
        ("a mirror", [line.replace("1 ", "0 ", 1) for line in TURNED["a mirror"]]),  # of an arrow the class turns too
        ("a quarter turn", TURNED["a quarter turn"]),
        ("a crop by 2 %", cut(LABELS, 0.02)),
        ("another encoding", [*LABELS, "0 0.9 0.1 0.03 0.03"]),  # small: it may have moved unseen
        ("a crop by 2 %", [*cut(LABELS, 0.02), "0 0.985 0.5 0.03 0.3"]),  # cut off by the edge
    ],
)
def test_the_same_labels_are_no_contradiction(tmp_path: Path, kind: str, labels: list[str]) -> None:
    assert told(tmp_path, kind, labels) == []


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("another encoding", ["1 0.3 0.4 0.2 0.3", LABELS[1]], "line 1 is dog and line 1 there cat"),
        ("another size", [LABELS[0]], "line 2 there (dog) has no counterpart here"),
        ("a blur", [*LABELS, "0 0.5 0.15 0.1 0.1"], "line 3 (cat) has no counterpart there"),
        ("more light", None, "line 1 there (cat) has no counterpart here"),
        ("a mirror", LABELS, "line 1 (cat) has no counterpart there"),  # the labels were not mirrored
        ("a quarter turn", TURNED["a quarter turn"][:1], "line 2 there (dog) has no counterpart here"),
        ("a crop by 2 %", cut(LABELS, 0.02)[1:], "line 1 there (cat) has no counterpart here"),
    ],
)
def test_contradicting_labels_are_told_once(tmp_path: Path, kind: str, labels: list[str] | None, message: str) -> None:
    assert told(tmp_path, kind, labels) == [message]


def test_a_copy_in_another_class_folder_is_told_unless_it_is_turned(tmp_path: Path) -> None:
    for seed, folder in enumerate(("train/six", "train/nine", "val/six", "val/nine")):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / f"{seed}.png").write_bytes(encoded(np.asarray(photograph(seed))))
    image = photograph(91)
    (tmp_path / "train/six/a.png").write_bytes(encoded(np.asarray(image)))
    (tmp_path / "val/nine/turned.jpg").write_bytes(jpeg(image.transpose(Image.Transpose.ROTATE_180)))
    assert not [f for f in check(tmp_path).findings if f.rule.id == "near-duplicate-labels"]
    (tmp_path / "val/nine/copy.jpg").write_bytes(jpeg(image))
    (finding,) = [f for f in check(tmp_path).findings if f.rule.id == "near-duplicate-labels"]
    assert finding.message.startswith("is of class nine, and ")
    assert finding.message.endswith("train/six/a.png, which shows the same picture, of class six")
