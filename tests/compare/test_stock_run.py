"""A run by Ultralytics' own trainer; the whole of it is trained in ``test_real.py``."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from yolo_stable.compare import stock_run
from yolo_stable.compare.outcome import left_behind
from yolo_stable.presets.presets import load_preset
from yolo_stable.train import model as train_model


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the arguments that the model was trained with; it trains nothing."""
    given: dict[str, Any] = {}

    class Model:
        task = "detect"
        trainer = SimpleNamespace(save_dir=tmp_path / "run")

        def train(self, **arguments: Any) -> None:
            given.update(arguments)

    def opened(name: str) -> Model:
        given["model"] = name
        return Model()

    monkeypatch.setattr(train_model, "open_model", opened)
    (tmp_path / "data.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    return given


def test_it_has_the_arguments_of_the_guarded_run_and_nothing_of_the_guard(
    given: dict[str, Any], tmp_path: Path
) -> None:
    words = ["data.yaml", "model=yolo11n.yaml", "lr0=0.5", "guard.max_norm=5", "validate=quick", "device=cpu"]
    assert stock_run.main([*words, "--preset", "stable"]) == 0
    expected = {**load_preset("stable").values, "lr0": 0.5, "device": "cpu"}
    assert given == {**expected, "data": "data.yaml", "model": "yolo11n.yaml"}
    found = left_behind(tmp_path / "run")
    assert found is not None
    assert found.status == "done"
    assert json.loads((tmp_path / "run" / "stock.json").read_text()) == {"schema": 1, "status": "done"}


@pytest.mark.parametrize("model", ["a.yaml", "a.pt"])
def test_without_a_preset_nothing_is_changed_as_in_train(given: dict[str, Any], model: str) -> None:
    assert stock_run.main(["data.yaml", f"model={model}"]) == 0
    assert given == {"data": "data.yaml", "model": model}


@pytest.mark.parametrize(("model", "preset"), [("a.yaml", "guarded"), ("a.pt", "stable")])
def test_the_model_chooses_the_preset_when_asked_to(given: dict[str, Any], model: str, preset: str) -> None:
    assert stock_run.main(["data.yaml", f"model={model}", "--preset", "auto"]) == 0
    assert given["lr0"] == load_preset(preset).values["lr0"]


def test_named_augmentations_are_made(given: dict[str, Any]) -> None:
    assert stock_run.main(["data.yaml", "model=a.yaml", "augmentations=conservative"]) == 0
    assert given["augmentations"]
    assert not isinstance(given["augmentations"], str)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gone.yaml", "model=a.yaml"], "there is no data set 'gone.yaml'"),
        (["data.yaml", "model=a.yaml", "epochs=0"], "'epochs=0' is an invalid value"),
    ],
)
def test_a_wrong_call_is_one_line(
    given: dict[str, Any], capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert stock_run.main(words) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("yolo-stable: train: ")
    assert line in said


def test_a_model_that_cannot_be_opened_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text("backbone: [\n")
    assert stock_run.main([str(tmp_path), f"model={tmp_path / 'a.yaml'}"]) == 2
    assert "a.yaml cannot be used" in capsys.readouterr().err.splitlines()[-1]
