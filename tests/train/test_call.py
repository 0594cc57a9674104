"""The words of ``yolo-stable train`` and what is checked of them before anything is trained."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yolo_stable._shared.text import one_line
from yolo_stable.errors import InvalidCallError
from yolo_stable.presets.presets import AUTO
from yolo_stable.train.call import TrainCall
from yolo_stable.train.run import run

COMPLETE = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def one_line_of(error: pytest.ExceptionInfo[InvalidCallError]) -> str:
    """Return the message, which is one line without colours and signs."""
    text = str(error.value)
    assert text.isprintable(), f"more than one plain line: {text!r}"
    assert "❌" not in text
    return text


# ---- words ---------------------------------------------------------------------------------------------------------------


def test_words_are_sorted_into_data_model_settings_and_guard() -> None:
    words = [
        "model=yolo11n.yaml",
        "lr0=1e-3",
        "epochs=50",
        "amp=False",
        "name=007",
        "guard.max_norm=none",
        "guard.x=true",
    ]
    call = TrainCall.parse("data.yaml", words, "stable")
    assert call == TrainCall(
        data="data.yaml",
        model="yolo11n.yaml",
        settings={"lr0": 0.001, "epochs": 50, "amp": False, "name": "007"},
        guard={"max_norm": None, "x": True},
        preset="stable",
    )


@pytest.mark.parametrize(
    ("data", "words", "settings"),
    [
        pytest.param("my/data.yaml", [], {}, id="bare"),
        pytest.param("data=my/data.yaml", [], {}, id="data="),
        pytest.param("data=my/data.yaml", ["epochs=3"], {"epochs": 3}, id="data= before others"),
        pytest.param("epochs=3", ["data=my/data.yaml"], {"epochs": 3}, id="data= behind others"),
    ],
)
def test_the_data_set_may_be_written_as_ultralytics_writes_it(
    data: str, words: list[str], settings: dict[str, Any]
) -> None:
    assert TrainCall.parse(data, words) == TrainCall(data="my/data.yaml", settings=settings)


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr0=1.yaml").touch()
    assert TrainCall.parse("lr0=1.yaml", []).data == "lr0=1.yaml"


def test_of_a_key_that_is_given_twice_the_last_value_counts() -> None:
    assert TrainCall.parse("data.yaml", ["lr0=0.1", "lr0=0.2"]).settings == {"lr0": 0.2}


def test_the_task_is_detect_unless_another_is_asked_for() -> None:
    assert TrainCall.parse("data.yaml", []).task == "detect"
    assert TrainCall.parse("data.yaml", ["task=obb"]).task == "obb"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        pytest.param(["epochs"], r"'epochs' is not understood\. Write settings as key=value", id="no equals sign"),
        pytest.param(["nonsense"], r"'nonsense' is not understood\. Write settings", id="strange word"),
        pytest.param(["=50"], r"'=50' is not understood", id="no key"),
        pytest.param(["lr_0=0.1"], r"'lr_0' is not a setting of Ultralytics\. Did you mean 'lr0'\?", id="unknown key"),
        pytest.param(["zzzzz=1"], r"'zzzzz' is not a setting of Ultralytics\. `yolo cfg` lists", id="nothing near"),
        pytest.param(["epochs=many"], r"epochs is 'many' \(str\), but takes int", id="text for a number"),
        pytest.param(["epochs=1.5"], r"epochs is 1\.5 \(float\), but takes int", id="fraction for a whole number"),
        pytest.param(["amp=3"], r"amp is 3 \(int\), but takes bool", id="number for a flag"),
        pytest.param(["lr0=1e999"], r"lr0=inf is not finite", id="infinity"),
        pytest.param(["task=segmnt"], r"task=segmnt is not among .*: detect, segment, .* mean 'segment'\?", id="task"),
        pytest.param(["task=caption"], r"task=caption is not among the tasks that the guard supports", id="other task"),
        pytest.param(["augmentations=[1]"], r"augmentations=\[1\] is not among conservative", id="augmentations"),
        pytest.param(
            ["model="],
            r"model= is empty\. Give a checkpoint \(\.pt\) or a YAML, or leave model out for Ultra",
            id="empty model",
        ),
        pytest.param(["model=/"], r"model=/ is a folder\. Give a checkpoint", id="model is a folder"),
        pytest.param(["data=b.yaml"], r"the data set is named twice: 'a\.yaml' and 'b\.yaml'", id="two data sets"),
    ],
)
def test_a_wrong_word_is_refused_with_what_would_be_right(words: list[str], match: str) -> None:
    with pytest.raises(InvalidCallError, match=match) as error:
        TrainCall.parse("a.yaml", words)
    assert one_line_of(error).startswith("train: ")


@pytest.mark.parametrize("data", ["epochs=3", "data=", "", "train", "detect"])
def test_a_call_without_a_data_set_is_refused(data: str) -> None:
    with pytest.raises(InvalidCallError, match=r"train: the data set is missing\. Name one"):
        TrainCall.parse(data, [])


# ---- more of them in a file ----------------------------------------------------------------------------------------------


@pytest.fixture
def cfg(tmp_path: Path) -> Callable[[str], str]:
    """Return the word that names a file with this text."""

    def word(text: str) -> str:
        (tmp_path / "c.yaml").write_text(text)
        return f"cfg={tmp_path / 'c.yaml'}"

    return word


def test_a_file_says_what_the_words_do_not_say(cfg: Callable[[str], str]) -> None:
    text = "model: a.yaml\ndata: a/data.yaml\ntask: segment\npretrained: a.pt\nresume: a/last.pt\nlr0: 0.1\nbox: 5\n"
    settings = {"task": "segment", "pretrained": "a.pt", "resume": "a/last.pt", "lr0": 0.1, "box": 5}
    word = cfg(text)
    assert TrainCall.parse(word, []) == TrainCall(data="a/data.yaml", model="a.yaml", settings=settings)
    call = TrainCall.parse("b.yaml", ["lr0=0.2", word, "model=b.pt", "task=obb", "resume=False"])
    assert call == TrainCall(
        data="b.yaml", model="b.pt", settings={**settings, "task": "obb", "resume": False, "lr0": 0.2}
    )


@pytest.mark.parametrize("exist_ok", ["true", "false"])
def test_the_args_of_a_run_are_taken_without_where_it_wrote(cfg: Callable[[str], str], exist_ok: str) -> None:
    text = f"""
        mode: train
        model: a.yaml
        data: a/data.yaml
        lr0: 0.1
        time: null
        cfg: older.yaml
        project: runs
        name: first
        exist_ok: {exist_ok}
        resume: runs/first/weights/last.pt
        save_dir: runs/first
        guard: {{max_norm: 3.0, max_total: 9}}
        preset: stable
    """
    word = cfg(textwrap.dedent(text))
    settings = {"mode": "train", "lr0": 0.1, "time": None, "project": "runs", "name": "first"}
    guard = {"max_norm": 3.0, "max_total": 9}
    assert TrainCall.parse("b.yaml", [word]) == TrainCall(
        data="b.yaml", model="a.yaml", settings=settings, guard=guard, preset="stable"
    )
    call = TrainCall.parse("b.yaml", [word, "guard.max_norm=none", "save_dir=x", "exist_ok=True"], "cautious")
    assert call.guard == {"max_norm": None, "max_total": 9}
    assert call.preset == "cautious"
    assert call.settings == {**settings, "save_dir": "x", "exist_ok": True}


@pytest.mark.parametrize(
    ("line", "preset"),
    [
        ("preset: null", None),
        ("preset: auto", AUTO),
        ("preset: none", None),
        ("box: 5", None),
        ("preset: stable", "stable"),
    ],
)
def test_a_run_is_done_again_with_its_preset_or_without(
    cfg: Callable[[str], str], line: str, preset: str | None
) -> None:
    assert TrainCall.parse("b.yaml", [cfg(line)]).preset == preset
    assert TrainCall.parse("b.yaml", [cfg(line)], "none").preset is None


def test_without_a_preset_there_is_none() -> None:
    assert TrainCall.parse("data.yaml", []).preset is None
    assert TrainCall.parse("data.yaml", [], AUTO).preset == AUTO


@pytest.mark.parametrize(
    ("text", "match"),
    [
        pytest.param(
            "box: 5\nlr_0: 0.1\n", r"cfg=.*c\.yaml, line 2: 'lr_0' is not a setting .* mean 'lr0'\?", id="key"
        ),
        pytest.param("lr0: 1e-3\n", r"line 1: lr0 is '1e-3' \(str\), but takes float.* 1\.0e-3", id="type"),
        pytest.param("optimizer: [\n", r"cfg=.*c\.yaml cannot be used: .* not valid YAML", id="not YAML"),
        pytest.param("", r"cannot be used: .*c\.yaml is empty", id="empty"),
        pytest.param("guard: 5\n", r"line 1: guard is 5\. It must be a mapping of settings, or none\.", id="guard"),
        pytest.param("preset: 5\n", r"line 1: preset is 5\. It must be the name or path of a preset, or", id="preset"),
        pytest.param("preset: stabel\n", r"There is no preset 'stabel'\. Did you mean 'stable'\?", id="no such preset"),
        pytest.param(
            "data: [a.yaml, b.yaml]\n",
            r"the data set is \['a\.yaml', 'b\.yaml'\]\. Name one, .* takes several",
            id="two data",
        ),
        pytest.param("task: segmnt\ndata: a.yaml\n", r"task=segmnt is not among", id="task"),
        pytest.param("box: 5\n", r"the data set is missing", id="no data set"),
    ],
)
def test_a_file_is_checked_as_words_are(cfg: Callable[[str], str], text: str, match: str) -> None:
    with pytest.raises(InvalidCallError, match=match) as error:
        TrainCall.parse(cfg(text), [])
    one_line_of(error)


@pytest.mark.parametrize("word", ["cfg=", "cfg=none"])
def test_no_file_is_no_file(word: str) -> None:
    assert TrainCall.parse("b.yaml", [word]) == TrainCall(data="b.yaml")


def test_a_preset_holds_nothing_but_hyperparameters(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("lr0: 0.1\nmodel: a.yaml\ntask: segment\n")
    with pytest.raises(InvalidCallError, match=r"p\.yaml: model, task cannot be in a preset, .* as cfg=") as error:
        TrainCall.parse("b.yaml", [], str(tmp_path / "p.yaml"))
    one_line_of(error)


# ---- what else is refused ------------------------------------------------------------------------------------------------


def test_an_unknown_preset_is_answered_with_the_list() -> None:
    with pytest.raises(
        InvalidCallError, match=r"no preset 'stabel'\. Did you mean 'stable'\?.* adamw, cautious,"
    ) as error:
        TrainCall.parse("data.yaml", [], "stabel")
    one_line_of(error)


@pytest.mark.parametrize(
    ("word", "match"),
    [
        pytest.param("guard.max_nrom=5", r"guard has no setting 'max_nrom'\. Did you mean 'max_norm'\?", id="unknown"),
        pytest.param("guard.zzz=5", r"guard has no setting 'zzz'\. Valid: max_norm, reject_norm,", id="nothing near"),
        pytest.param("guard.max_norm=-1", r"guard\.max_norm=-1 is not allowed\. It must be .* above 0", id="range"),
        pytest.param("guard.max_norm=five", r"guard\.max_norm='five' is not allowed", id="text"),
        pytest.param("guard.min_scale=none", r"guard\.min_scale=None is not allowed", id="none"),
        pytest.param("guard.max_total=0", r"guard\.max_total=0 is not allowed\. .* 1 or more", id="zero"),
        pytest.param("guard.batchnorm=1", r"guard\.batchnorm=1 is not allowed\. It must be True or False", id="flag"),
    ],
)
def test_a_wrong_guard_setting_is_refused_before_the_data_are_looked_for(word: str, match: str) -> None:
    call = TrainCall.parse("nowhere.yaml", [word])
    with pytest.raises(InvalidCallError, match=match) as error:
        run(call)
    one_line_of(error)


def test_an_error_of_others_becomes_one_plain_line() -> None:
    assert (
        one_line(ValueError("\x1b[34mtrain:\x1b[0m key missing ❌.\n  See  the docs"))
        == "train: key missing. See the docs"
    )
    assert one_line(KeyError()) == "KeyError"


# ---- data sets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_data_set_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(
        InvalidCallError, match=r"there is no data set 'data\.yaml' \(seen from .*\)\. Give the path"
    ) as error:
        TrainCall.parse("data.yaml", []).resolve_data()
    assert str(folder) in one_line_of(error)
    with pytest.raises(InvalidCallError, match=r"there is no data set 'digit' .*\. Did you mean 'digits'\?"):
        TrainCall.parse("digit", []).resolve_data()


def test_a_path_and_an_address_are_taken_as_they_are(folder: Path) -> None:
    (folder / "data.yaml").write_text(COMPLETE)
    for data in ("data.yaml", "https://example.com/data.zip"):
        assert TrainCall.parse(data, []).resolve_data() == data


def test_a_built_in_data_set_is_made_for_the_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []

    def make(name: str, *, task: str) -> Path:
        made.append((name, task))
        return Path("made.yaml")

    monkeypatch.setattr("yolo_stable.train.call.make", make)
    call = TrainCall.parse("shapes", ["task=pose"])
    assert (call.resolve_data(), call.resolve_data("obb")) == ("made.yaml", "made.yaml")
    assert made == [("shapes", "pose"), ("shapes", "obb")]
