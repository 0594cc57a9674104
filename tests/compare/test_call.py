"""From the words of ``yolo-stable compare`` to its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from comparing_rig import compare_call

from yolo_stable.compare.call import difference
from yolo_stable.errors import InvalidCallError
from yolo_stable.train.call import TrainCall


def test_each_run_is_a_call_of_train_in_a_folder_of_its_own(tmp_path: Path) -> None:
    call = compare_call("model=yolo11n.yaml", "batch=8", optimizers="SGD,AdamW", presets="guarded")
    assert [trial.name for trial in call.trials] == ["preset=guarded,optimizer=SGD", "preset=guarded,optimizer=AdamW"]
    words = call.trials[1].start_words(tmp_path)
    assert words[-2:] == ["--preset", "guarded"]
    made = TrainCall.parse(words[0], words[1:-2], "guarded")
    assert (made.model, made.settings["batch"], made.settings["optimizer"]) == ("yolo11n.yaml", 8, "AdamW")
    assert (made.settings["epochs"], made.settings["seed"]) == (3, 0)
    assert (made.settings["project"], made.settings["name"]) == (str(tmp_path), call.trials[1].name)
    assert call.trials[1].resume_words(tmp_path) == [
        "data.yaml",
        f"model={tmp_path}/{call.trials[1].name}/weights/last.pt",
        "resume=True",
    ]


def test_runs_of_one_group_differ_by_their_seed_only() -> None:
    call = compare_call("optimizer=SGD", lr0="0.01,0.02", seeds="3,4")
    groups = {
        group: [t.choice["seed"] for t in call.trials if t.group == group] for t in call.trials for group in [t.group]
    }
    assert groups == {"lr0=0.01": [3, 4], "lr0=0.02": [3, 4]}


def test_two_presets_of_the_same_name_are_two_folders_and_two_groups(tmp_path: Path) -> None:
    paths = [tmp_path / name / "Hyp.yaml" for name in "ab"]
    for number, path in enumerate(paths):
        path.parent.mkdir()
        path.write_text(f"lr0: 0.0{number + 1}\n")
    call = compare_call(presets=",".join(map(str, paths)), seeds="0,1")
    assert len({trial.name.lower() for trial in call.trials}) == 4
    assert [trial.group for trial in call.trials] == ["preset=Hyp", "preset=Hyp-2"] * 2


@pytest.mark.parametrize(
    ("words", "epochs", "number"),
    [(["epochs=7"], None, 7), ([], 9, 9), ([], None, 3)],
    ids=["as a word", "as an option", "not given"],
)
def test_the_runs_are_short_unless_epochs_are_given(words: list[str], epochs: int | None, number: int) -> None:
    call = compare_call(*words, epochs=epochs, stock=True)
    assert {trial.epochs for trial in call.trials} == {number}
    assert f"epochs={number}" in call.trials[0].words


@pytest.mark.parametrize(
    ("words", "axes", "line"),
    [
        pytest.param(
            "optimizer=SGD", {"optimizers": "SGD,Adam"}, "optimizer= and --optimizers set the same", id="optimizer"
        ),
        pytest.param("lr0=1", {"lr0": "0.1,0.2"}, "lr0= and --lr0 set the same thing", id="lr0"),
        pytest.param("seed=1", {"seeds": "1,2"}, "seed= and --seeds set the same thing", id="seed"),
        pytest.param("project=x name=y", {"stock": True}, "project=, name= cannot be set: each run", id="folder"),
        pytest.param(
            "guard.alert=https://a/b", {"stock": True}, "guard.alert= cannot be set: it is a secret", id="alert"
        ),
        pytest.param("resume=True", {"stock": True}, "resume= cannot be set: each run has", id="resume"),
        pytest.param("", {"lr0": "0.1,0.2"}, "--lr0 would change nothing: optimizer=auto", id="auto"),
        pytest.param(
            "", {"lr0": "0.1,0.2", "presets": "none"}, "--lr0 would change nothing", id="auto without a preset"
        ),
        pytest.param("epochs=0", {"stock": True}, "0 epochs are not allowed", id="epochs"),
        pytest.param(
            "lr_0=1", {"stock": True}, "train: 'lr_0' is not a setting of Ultralytics. Did you mean", id="key"
        ),
        pytest.param("task=detekt", {"stock": True}, "train: task=detekt is not among the tasks", id="task"),
    ],
)
def test_a_wrong_word_is_refused(words: str, axes: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidCallError, match=line):
        compare_call(*words.split(), **axes)


def test_what_differs_between_two_calls_is_named() -> None:
    one = compare_call("batch=8", "optimizer=SGD", lr0="0.01,0.02").record()
    other = compare_call("imgsz=64", "optimizer=SGD", lr0="0.01,0.03", epochs=5).record()
    assert difference(one, one) == ""
    assert difference(one, other) == (
        "--lr0: 0.01,0.02 before, 0.01,0.03 now; batch: 8 before, not given now; epochs: 3 before, 5 now;"
        " imgsz: not given before, 64 now"
    )


def test_a_preset_is_compared_with_ultralytics_own_settings() -> None:
    call = compare_call(presets="none,stable", lr0="0.1,0.2")
    assert [trial.name for trial in call.trials][::2] == ["preset=none,lr0=0.1", "preset=stable,lr0=0.1"]
    assert any("--lr0 changes nothing" in note for note in call.notes())
    assert call.record()["--presets"][0] == {"preset": "none", "values": {}}


def test_a_preset_that_was_edited_is_another_call(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    records = []
    for rate in (0.01, 0.02):
        path.write_text(f"lr0: {rate}\n")
        records.append(compare_call(presets=f"stable,{path}").record())
    assert difference(*records).startswith("--presets: stable,")


@pytest.mark.parametrize(
    ("words", "axes", "note"),
    [
        pytest.param("", {"stock": True}, "The warm-up takes 2 of the 3 epochs", id="warm-up"),
        pytest.param("epochs=20", {"presets": "stable,cautious"}, "The warm-up takes 10 of the 20", id="of a preset"),
        pytest.param("epochs=20", {"optimizers": "SGD,AdamW"}, "SGD, AdamW have the same learning", id="one rate"),
        pytest.param("epochs=20", {"optimizers": "SGD,auto", "lr0": "0.1,0.2"}, "--lr0 changes nothing", id="auto"),
    ],
)
def test_what_makes_a_comparison_unfair_is_said(words: str, axes: dict[str, Any], note: str) -> None:
    (found,) = compare_call(*words.split(), **axes).notes()
    assert note in found


def test_of_a_fair_comparison_nothing_is_said() -> None:
    assert compare_call("epochs=9", optimizers="SGD,MuSGD").notes() == []
    assert compare_call("epochs=9", optimizers="SGD,AdamW", lr0="0.01,0.001").notes() == []
