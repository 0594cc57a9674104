"""The text of a data.yaml: values as Ultralytics' loader has them, lines, keys that are there twice, and names as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_stable.check.yaml_text import parse


@pytest.mark.parametrize(
    "text", ["names: [a, b]\t\n", "a: 1\n---\nb: 2\n", "x: &n {0: a}\nnames:\n  <<: *n\n", "a: [1\n", "\tb: 1\n"]
)
def test_it_takes_what_ultralytics_takes(text: str, tmp_path: Path) -> None:
    from ultralytics.utils import YAML

    path = tmp_path / "data.yaml"
    path.write_text(text)
    try:
        theirs: object = YAML.load(str(path))
    except ValueError:
        theirs = ValueError
    try:
        ours: object = parse(text.encode()).value
    except Exception:  # noqa: BLE001 - of the YAML library
        ours = ValueError
    assert ours == theirs


def test_a_key_that_is_there_twice_is_told_with_both_lines_and_the_last_one_counts() -> None:
    parsed = parse(b"train: a\nnames:\n  0: x\n  1: y\n  1: z\ntrain: b\n")
    assert parsed.twice == [("train", 1, 6), ("1", 4, 5)]
    assert parsed.value == {"train": "b", "names": {0: "x", 1: "z"}}
    assert parsed.written == []  # which text belongs to which name is not told


def test_names_stand_there_as_they_are_written() -> None:
    assert parse(b"names: [yes, 010, 'no', [a], ]").written == ["yes", "010", "no", "a list or mapping"]
    assert parse(b"names: {1: yes, 0: x}").written == ["yes", "x"]
    assert parse(b"").value is None
