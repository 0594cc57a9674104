from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import GuardConfig
from yolo_stable.presets.guard_settings import GuardSettings
from yolo_stable.presets.presets import load_hyp
from yolo_stable.presets.run_plan import AUTO, RunPlan, checkpoint_to_resume, choose_preset, separate


@pytest.mark.parametrize(
    "overrides",
    [None, {}, {"guard": None, "preset": None}, {"preset": "none"}],
    ids=["none", "empty", "nones", "said"],
)
def test_nothing_asked_for_means_ultralytics_with_the_default_guard(overrides: dict[str, Any] | None) -> None:
    assert separate(overrides) == (RunPlan(guard=GuardSettings.of(None).guard), {})


def test_the_two_keys_are_taken_out_and_the_callers_dict_is_left_alone() -> None:
    overrides = {"model": "yolo11n.pt", "epochs": 3, "guard": {"max_norm": 5.0}, "preset": "stable"}
    before = dict(overrides)
    plan, rest = separate(overrides)
    assert overrides == before
    assert plan.guard == GuardSettings.of({"max_norm": 5.0}).guard
    assert plan.preset == "stable"
    assert plan.why == ""
    assert "guard" not in rest
    assert "preset" not in rest


def test_without_a_preset_the_arguments_are_as_given() -> None:
    overrides = {"model": "yolo11n.pt", "lr0": 0.3}
    plan, rest = separate({**overrides, "guard": {"batchnorm": False}})
    assert rest == overrides
    assert (plan.preset, dict(plan.overridden)) == (None, {})


def test_a_preset_lies_under_the_explicit_arguments() -> None:
    preset = load_hyp("stable")
    plan, rest = separate({"preset": "stable", "lr0": 0.02, "momentum": preset["momentum"], "epochs": 7})
    assert rest == {**preset, "lr0": 0.02, "epochs": 7}
    assert plan.overridden == {"lr0": (preset["lr0"], 0.02)}  # what is given but the same is not overridden


def test_an_explicit_value_may_be_ultralytics_default() -> None:
    """The preset must not win over a value only because the user typed what is the default anyway."""
    _, rest = separate({"preset": "stable", "lr0": 0.01})
    assert rest["lr0"] == 0.01


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        ("yolo11n.pt", "stable"),
        ("runs/train/weights/last.pt", "stable"),
        (Path("yolo11n.pt"), "stable"),
        ("yolo11n.yaml", "guarded"),
        ("YOLO11N.YAML", "guarded"),
        ("mine.yml", "guarded"),
        (Path("a/b.yaml"), "guarded"),
        ("", "stable"),
    ],
    ids=str,
)
def test_the_preset_is_chosen_by_what_the_model_starts_from(model: str | Path, preset: str) -> None:
    name, why = choose_preset(model)
    assert name == preset
    plan, rest = separate({"model": model, "preset": AUTO})
    assert (plan.preset, plan.why) == (preset, why)
    assert ("YAML" in why) is (preset == "guarded")
    assert rest == {**load_hyp(preset), "model": model}


@pytest.mark.parametrize(
    ("model", "pretrained", "preset"),
    [("yolo11n.yaml", "best.pt", "stable"), ("yolo11n.pt", False, "guarded"), ("yolo11n.yaml", True, "guarded")],
)
def test_pretrained_says_what_the_model_really_starts_from(model: str, pretrained: object, preset: str) -> None:
    assert separate({"model": model, "pretrained": pretrained, "preset": AUTO})[0].preset == preset


@pytest.mark.parametrize("as_text", [True, False], ids=["text", "path"])
def test_a_preset_may_be_a_file(tmp_path: Path, as_text: bool) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("box: 5.0\n")
    plan, rest = separate({"preset": str(path) if as_text else path})
    assert rest == {"box": 5.0}
    assert plan.to_dict() == {"guard": GuardSettings.of(None).to_dict(), "preset": str(path)}
    assert yaml.safe_load(yaml.safe_dump(plan.to_dict())) == plan.to_dict()


def test_a_preset_says_nothing_about_model_and_data(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("box: 5.0\nmodel: yolo11x.yaml\n")
    with pytest.raises(InvalidCallError, match=r"mine\.yaml: model cannot be in a preset"):
        separate({"preset": path})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"guard": {"max_nrom": 1.0}}, "guard has no setting 'max_nrom'. Did you mean 'max_norm'?"),
        ({"guard": {"max_norm": -1.0}}, "guard.max_norm=-1.0 is not allowed."),
        ({"guard": "max_norm=5"}, "guard='max_norm=5' is not allowed. It must be a dict of settings"),
        ({"guard": False}, "guard=False is not allowed. It must be a dict of settings"),
        ({"preset": "stabel"}, "There is no preset 'stabel'. Did you mean 'stable'?"),
        ({"preset": ""}, "There is no preset ''."),
        ({"preset": 5}, "preset=5 is not allowed. It must be the name or the path of a preset."),
        ({"preset": True}, "preset=True is not allowed. It must be the name or the path of a preset."),
        ({"preset": {"lr0": 0.1}}, "preset={'lr0': 0.1} is not allowed. It must be the name or the path of a preset."),
        ({"preset": "nowhere.yaml"}, "The settings file nowhere.yaml does not exist"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value),
)
def test_what_is_wrong_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}"):
        separate(overrides)


# ---- a run that is resumed ---------------------------------------------------------------------------------------------

SAVED: dict[str, Any] = {"lr0": 0.123, "guard": {"max_norm": 3.0, "max_total": 9}, "preset": "cautious"}


def run_folder(tmp_path: Path, saved: dict[str, Any] | str | bytes | None) -> Path:
    """Make a run and return its checkpoint."""
    weights = tmp_path / "run" / "weights"
    weights.mkdir(parents=True)
    (weights / "last.pt").touch()
    if saved is not None:
        text = yaml.safe_dump(saved) if isinstance(saved, dict) else saved
        (tmp_path / "run" / "args.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    return weights / "last.pt"


def resuming(checkpoint: Path, how: str) -> dict[str, Any]:
    """Return the ways in which a trainer learns what it resumes."""
    ways: dict[str, dict[str, Any]] = {
        "text": {"resume": str(checkpoint)},
        "path": {"resume": checkpoint},
        "model": {"resume": True, "model": str(checkpoint)},
    }
    return ways[how]


@pytest.mark.parametrize("how", ["text", "path", "model"])
def test_a_resumed_run_keeps_its_guard_and_the_name_of_its_preset(tmp_path: Path, how: str) -> None:
    overrides = resuming(run_folder(tmp_path, SAVED), how)
    plan, rest = separate(overrides)
    assert plan == RunPlan(guard=GuardSettings.of({"max_norm": 3.0, "max_total": 9}).guard, preset="cautious")
    assert rest == overrides  # its hyperparameters come from the checkpoint: nothing is laid under them


@pytest.mark.parametrize("folder", ["run/weights", "run", "."])
def test_a_resumed_run_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    checkpoint = run_folder(tmp_path, SAVED)
    monkeypatch.chdir(tmp_path / folder)
    plan, _ = separate({"resume": str(checkpoint.relative_to(tmp_path / folder))})
    assert plan.preset == "cautious"


@pytest.mark.parametrize(
    ("guard", "expected"),
    [
        ({"max_norm": 7.0}, GuardSettings.of({"max_norm": 7.0, "max_total": 9}).guard),
        ({"max_norm": None}, GuardSettings.of({"max_norm": None, "max_total": 9}).guard),
        ({}, GuardSettings.of({"max_norm": 3.0, "max_total": 9}).guard),
        (None, GuardSettings.of({"max_norm": 3.0, "max_total": 9}).guard),
        (GuardConfig(batchnorm=False), GuardConfig(batchnorm=False)),
    ],
    ids=["one", "off", "empty", "none", "all"],
)
def test_each_guard_setting_that_is_given_anew_replaces_the_saved_one(
    tmp_path: Path, guard: Any, expected: GuardConfig
) -> None:
    checkpoint = run_folder(tmp_path, SAVED)
    plan, rest = separate({"resume": checkpoint, "guard": guard})
    assert (plan.guard, plan.preset) == (expected, "cautious")
    was = GuardSettings.of({"max_norm": 3.0, "max_total": 9}).to_dict()
    now = {**was, **expected.to_dict()}
    assert plan.changed == {f"guard.{name}": (was[name], now[name]) for name in now if was[name] != now[name]}
    assert rest == {"resume": checkpoint}


@pytest.mark.parametrize(
    "saved",
    [None, {"lr0": 0.1}, {"lr0": 0.1, "guard": None, "preset": None}, "", "- a\n- b\n", "text"],
    ids=["no-file", "without-keys", "nulls", "empty", "list", "text"],
)
def test_a_run_that_was_not_ours_is_resumed_with_the_defaults(
    tmp_path: Path, saved: dict[str, Any] | str | None
) -> None:
    assert separate({"resume": run_folder(tmp_path, saved)})[0] == RunPlan(guard=GuardSettings.of(None).guard)


@pytest.mark.parametrize(
    "content", ["guard: {max_norm: [1\n", b"guard: \xff\n", "a: b: c\n"], ids=["cut", "bytes", "colons"]
)
def test_a_damaged_args_yaml_is_named(tmp_path: Path, content: str | bytes) -> None:
    checkpoint = run_folder(tmp_path, content)
    place = re.escape(str(tmp_path / "run" / "args.yaml"))
    with pytest.raises(
        InvalidCallError, match=rf"^{place} of the run to resume cannot be read: (?s:.*)\. Mend or remove it\.$"
    ):
        separate({"resume": checkpoint})


@pytest.mark.parametrize("guard", [5, {"max_nrom": 1.0}, {"max_norm": "many"}], ids=str)
def test_saved_guard_settings_that_are_wrong_are_told_from_those_of_the_call(tmp_path: Path, guard: object) -> None:
    checkpoint = run_folder(tmp_path, {"guard": guard})
    with pytest.raises(InvalidCallError, match=r"^args\.yaml of the run to resume: guard.* Mend it\.$"):
        separate({"resume": checkpoint})
    with pytest.raises(InvalidCallError, match=r"^guard has no setting 'zzz'"):
        separate({"resume": checkpoint, "guard": {"zzz": 1}})


@pytest.mark.parametrize("preset", ["cautious", AUTO, None], ids=str)
def test_a_resumed_run_may_be_given_the_preset_that_it_has(tmp_path: Path, preset: str | None) -> None:
    plan, rest = separate({"resume": run_folder(tmp_path, SAVED), "preset": preset})
    assert plan.preset == "cautious"
    assert set(rest) == {"resume"}


def test_a_file_of_ones_own_is_the_same_preset_by_any_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.yaml").write_text("box: 5.0\n")
    monkeypatch.chdir(tmp_path)
    checkpoint = run_folder(tmp_path, {"preset": "mine.yaml"})
    for preset in ("mine.yaml", Path("mine.yaml"), tmp_path / "mine.yaml"):
        assert separate({"resume": checkpoint, "preset": preset})[0].preset == "mine.yaml"


@pytest.mark.parametrize("saved", [SAVED, {"lr0": 0.1}, None], ids=str)
def test_a_resumed_run_may_be_given_another_preset(tmp_path: Path, saved: dict[str, Any] | None) -> None:
    """Its values lie over those of the checkpoint, and under what is given with it."""
    checkpoint = run_folder(tmp_path, saved)
    plan, rest = separate({"resume": checkpoint, "preset": "stable", "lr0": 0.003})
    values = load_hyp("stable")
    assert plan.preset == "stable"
    assert plan.overridden["lr0"] == (values["lr0"], 0.003)
    assert plan.guard == GuardSettings.of((saved or {}).get("guard")).guard
    assert rest == {**values, "resume": checkpoint, "lr0": 0.003}
    assert plan.changed == {}, "what it means for the run is known with the checkpoint"
    with pytest.raises(InvalidCallError, match=r"^preset=5 is not allowed\. It must be the name"):
        separate({"resume": checkpoint, "preset": 5})


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({"resume": "a/last.pt", "model": "b.pt"}, "a/last.pt"),
        ({"resume": Path("a/last.pt")}, "a/last.pt"),
        ({"resume": True, "model": "b.pt"}, "b.pt"),
        ({"resume": True, "model": "b.yaml"}, None),
        ({"resume": True}, None),
        ({"resume": False, "model": "b.pt"}, None),
        ({}, None),
    ],
    ids=str,
)
def test_what_is_resumed(overrides: dict[str, Any], expected: str | None) -> None:
    assert checkpoint_to_resume(overrides) == (None if expected is None else Path(expected).absolute())


@pytest.mark.parametrize("resume", [False, None, ""], ids=repr)
def test_a_resume_that_is_off_is_a_new_run(tmp_path: Path, resume: object) -> None:
    plan, rest = separate({"resume": resume, "model": str(run_folder(tmp_path, SAVED)), "preset": "guarded"})
    assert plan.guard == GuardSettings.of(None).guard
    assert rest["optimizer"] == "SGD"
