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


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("train: a\nnames:\n  0: x\n  1: y\n  1: z\ntrain: b\n", [("train", (1, 6), "b"), ("1", (4, 5), "z")]),
        ("names: {1: x, 01: y, 0x1: z, 0: w}\n", [("1", (1, 1, 1), "z")]),  # one number, however it is written
        ("names: [a, b]\nval: v\nnames: [c, d]\n", [("names", (1, 3), ["c", "d"])]),
        ("names: {0: a, '0': b}\n", []),  # a number and a text are two keys
        ("x: &n {0: a}\nnames:\n  <<: *n\n  0: b\n", []),  # a merged key gives way on purpose
        ("names: !!set {a, a}\n", []),
    ],
)
def test_a_repeated_key_is_told_with_its_lines_and_the_value_that_the_loader_takes(
    text: str, told: list[tuple[str, tuple[int, ...], object]]
) -> None:
    parsed = parse(text.encode())
    assert [(again.key, again.lines, again.value) for again in parsed.repeated] == told


def test_no_text_is_told_where_it_is_unknown_which_name_it_belongs_to() -> None:
    assert parse(b"names: {0: x, 1: y, 1: z}\n").written == []
    assert parse(b"x: &n {0: yes}\nnames:\n  <<: *n\n").written == []
    assert parse(b"names: [yes]\nnames: [b]\n").written == ["b"]


def test_names_stand_there_as_they_are_written() -> None:
    assert parse(b"names: [yes, 010, 'no', [a], ]").written == ["yes", "010", "no", "a list or mapping"]
    assert parse(b"names: {1: yes, 0: x}").written == ["yes", "x"]
    assert parse(b"").value is None
