from __future__ import annotations

import math
from pathlib import Path

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.presets.commented_yaml import CommentedYaml
from yolo_stable.presets.ultralytics_settings import check_setting, default_hyp, parse_value


def test_the_defaults_are_those_of_the_installed_ultralytics() -> None:
    defaults = default_hyp()
    expected = {"optimizer": "auto", "lr0": 0.01, "momentum": 0.937, "warmup_epochs": 3.0, "warmup_bias_lr": 0.1}
    assert {key: defaults[key] for key in expected} == expected
    assert defaults["data"] is None
    assert defaults["amp"] is True


def test_the_defaults_are_a_copy() -> None:
    default_hyp()["lr0"] = 99.0
    assert default_hyp()["lr0"] == 0.01


def test_every_default_is_accepted() -> None:
    for key, value in default_hyp().items():
        check_setting(key, value, "here")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lr0", 1),
        ("batch", 0.7),
        ("batch", -1),
        ("epochs", 100.0),
        ("imgsz", [320, 640]),
        ("imgsz", (320, 640)),
        ("device", "cpu"),
        ("device", [0, 1]),
        ("device", None),
        ("cache", "ram"),
        ("amp", "bf16"),
        ("resume", "runs/detect/train/weights/last.pt"),
        ("data", Path("data.yaml")),
        ("data", ["a.yaml", "b.yaml"]),
        ("name", 7),
        ("auto_augment", None),
        ("time", None),
        ("freeze", ["22.cv2", 3]),
        ("scale", (0.5, 2.0)),
        ("augmentations", [object()]),
        ("save_dir", "runs/x"),
    ],
)
def test_what_ultralytics_accepts_is_accepted(key: str, value: object) -> None:
    check_setting(key, value, "here")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("momentun", 0.9, "here: 'momentun' is not a setting of Ultralytics. Did you mean 'momentum'? `yolo cfg`"),
        ("lr0", True, "here: lr0 is True (bool), but takes float, such as Ultralytics' default 0.01."),
        ("lr0", None, "here: lr0 is None, but takes float"),
        ("lr0", "fast", "here: lr0 is 'fast' (str), but takes float, such as Ultralytics' default 0.01."),
        ("epochs", 1.5, "here: epochs is 1.5 (float), but takes int, such as Ultralytics' default 100."),
        ("amp", 0, "here: amp is 0 (int), but takes bool or str"),
        ("val", "yes please", "here: val is 'yes please' (str), but takes bool"),
        ("optimizer", 3, "here: optimizer is 3 (int), but takes str"),
        ("imgsz", 640.5, "here: imgsz is 640.5 (float), but takes int or list"),
        ("time", "long", "here: time is 'long' (str), but takes float or none."),
        ("lr0", {"a": 1}, "here: lr0 is {'a': 1} (dict), but takes float"),
        ("lr0", math.nan, "here: lr0=nan is not finite. Give a number, such as Ultralytics' default 0.01."),
        ("box", -math.inf, "here: box=-inf is not finite"),
        ("time", math.inf, "here: time=inf is not finite. Give a number."),
        ("scale", (0.5, math.nan), "here: scale=(0.5, nan) is not finite"),
    ],
)
def test_what_ultralytics_would_refuse_is_refused_with_the_way_out(key: str, value: object, message: str) -> None:
    with pytest.raises(InvalidCallError) as caught:
        check_setting(key, value, "here")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("key", "text", "hint"),
    [
        ("lr0", "1e-3", "YAML needs a point and a sign in 1.0e-3; or write 0.001, without quotes."),
        ("lr0", "2.5E4", "YAML needs a point and a sign in 2.5e+4; or write 25000, without quotes."),
        ("lr0", ".5e-2", "YAML needs a point and a sign in 0.5e-2; or write 0.005, without quotes."),
        ("epochs", "50", "write 50, without quotes."),
    ],
)
def test_a_number_that_arrived_as_text_is_told_how_to_arrive_as_a_number(key: str, text: str, hint: str) -> None:
    with pytest.raises(InvalidCallError) as caught:
        check_setting(key, text, "here")
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("none", None),
        ("True", True),
        ("false", False),
        (" 16 ", 16),
        ("1e-3", 0.001),
        ("-0.5", -0.5),
        ("[320, 640]", [320, 640]),
        ("0,1", (0, 1)),
        ("'quoted'", "quoted"),
        ("cpu", "cpu"),
        ("C:\\data\\new.yaml", "C:\\data\\new.yaml"),
        ("1if", "1if"),
        ("__import__('os').getcwd()", "__import__('os').getcwd()"),
        ("math.PI", "math.PI"),
        ("9" * 5000, "9" * 5000),
        ("a\0b", "a\0b"),
        ("", ""),
    ],
)
def test_text_becomes_the_value_that_it_spells(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value or text == "9" * 5000  # CPython 3.10 reads integers of any length
    assert type(parsed) is type(value) or text == "9" * 5000


@pytest.mark.parametrize(("text", "value"), [("007", "007"), ("true", "true"), ("None", None)])
def test_a_run_may_be_named_by_any_text(text: str, value: object) -> None:
    assert parse_value(text, key="name") == value


def test_a_file_is_read_with_its_comments(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "\ufeff# What it is for.\n#  When not.\n\n# elsewhere\na: 1  # one # two\nb:\nc: '#3' # three\n", "utf-8"
    )
    file = CommentedYaml.read(path)
    assert file.head == ("What it is for.", "When not.")
    assert [(entry.key, entry.value, entry.comment, entry.line) for entry in file.entries] == [
        ("a", 1, "one # two", 5),
        ("b", None, "", 6),
        ("c", "#3", "three", 7),
    ]


def test_a_value_over_several_lines_and_a_merge_are_plain_yaml(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("d: &d {lr0: 1, box: 2}\ne: [1,\n  2]  # two\nf:\n  - 1\n<<: *d\nlr0: 3  # more\n")
    entries = {entry.key: (entry.value, entry.comment) for entry in CommentedYaml.read(path).entries}
    assert entries["e"] == ([1, 2], "two")
    assert entries["f"] == ([1], "")
    assert entries["box"][0] == 2
    assert entries["lr0"] == (3, "more")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", " is empty, but settings are a mapping"),
        (b"- a\n- b\n", " holds a list, but settings are a mapping"),
        (b"hello\n", " is text, but settings are a mapping"),
        (b"lr0: 0.1\nlr0: 0.2\n", ":2: 'lr0' is given twice, first on line 1. Remove one of the two."),
        (b"lr0: 0.1\n\tbox: 1\n", ":2: not valid YAML: found character '\\t' that cannot start any token."),
        (b"lr0: 0.1\nbox: [1\n", ":3: not valid YAML: "),
        (b"a: 1\n---\nb: 2\n", ":2: not valid YAML: but found another document"),
        (b"a: 1\nb: !!python/name:os.system\n", ":2: not valid YAML: could not determine a constructor"),
        (b"a: 1\nb: 2024-13-45\n", ":2: the value of 'b' is not valid: month must be in 1..12"),
        (b"a: \x07\n", ": not valid YAML: "),
        (b"a: \xff\n", " cannot be read: it is not UTF-8 text."),
    ],
)
def test_a_file_that_is_no_mapping_is_refused_with_the_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidCallError) as caught:
        CommentedYaml.read(path)
    assert str(caught.value).startswith(f"{path}{message}")


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidCallError) as caught:
        CommentedYaml.read(tmp_path / "none.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'none.yaml'} cannot be read: No such file or directory. Give the path of a YAML file."
    )
