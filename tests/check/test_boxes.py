"""What is wrong with a box is said once, and only boxes that Ultralytics takes are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from check.planted import BOX, clean, encoded, picture

from yolo_stable.check import check


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("1 -0.1 0.5 0.4 0.4", ["coordinate-negative"]),
        ("1 1.2 0.5 0.5 0.4", ["coordinate-above-one"]),
        ("1 0.5 0.5 1.2 0.4", ["coordinate-above-one"]),
        ("1 -0.1 1.2 0.0 0.4", ["coordinate-negative"]),
        ("1 0.5 0.5 0.0 0.4", ["box-zero-area"]),
        ("1 0.5 0.5 0.4 0.0", ["box-zero-area"]),
        ("1 0.5 0.5 0.0 0.0", ["box-zero-area"]),
        ("1 0.8 0.5 0.5 0.4", ["box-over-edge"]),
        ("1.5 0.5 0.5 0.3 0.4", ["class-fraction"]),
        ("1 0.5 0.5 0.3 0.4", []),
    ],
)
def test_each_fault_of_a_box_is_told_once(tmp_path: Path, line: str, rules: list[str]) -> None:
    data = clean(tmp_path)
    data.add("one", labels=[BOX, line])
    report = check(data.root, near=False, sample=0)
    assert [(f.rule.id, f.line) for f in report.findings] == [(rule, 2) for rule in rules]


@pytest.mark.parametrize(
    ("line", "aspect"), [("1 0.5 0.5 0.9 0.01", 135), ("1 0.5 0.5 0.005 0.9", 120), ("1 0.5 0.5 0.02 0.5", 0)]
)
def test_a_long_box_is_told_whichever_way_it_lies(tmp_path: Path, line: str, aspect: int) -> None:
    data = clean(tmp_path)
    data.add("one", encoded(picture(7, 960, 640)), labels=[BOX, line])
    found = [(f.rule.id, f.message.split(";")[0]) for f in check(data.root, near=False, sample=0).findings]
    assert found == ([("box-aspect", f"sides are {aspect} : 1")] if aspect else [])
