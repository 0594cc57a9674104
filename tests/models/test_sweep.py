"""Several data sets in a row, and trainings that Ultralytics starts by command: a halt is not swallowed."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_stable import YOLO, StableDetectionTrainer, TrainingHaltedError
from yolo_stable.errors import TrainingInterruptedError
from yolo_stable.models.asked import Asked
from yolo_stable.models.command import guarded_command
from yolo_stable.models.sweep import Sweep, of_processes


class Spoilt(DetectionTrainer):
    """Whose images of one data set are not finite."""

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        batch = super().preprocess_batch(batch)
        if "bad" in str(self.args.data):
            batch["img"] = batch["img"] * float("nan")
        return batch


class Pressed(DetectionTrainer):
    """During whose first batch somebody presses Ctrl-C."""

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        signal.raise_signal(signal.SIGINT)
        return super().preprocess_batch(batch)


@pytest.fixture
def sets(tmp_path: Path, shapes: Callable[..., str]) -> list[str]:
    """Return two descriptions of a data set of four images."""
    text = Path(shapes(train=4, val=4)).read_text()
    for name in ("bad", "good"):
        (tmp_path / f"{name}.yaml").write_text(text)
    return [str(tmp_path / f"{name}.yaml") for name in ("bad", "good")]


@pytest.fixture
def given(arguments: Callable[..., dict[str, Any]], sets: list[str]) -> dict[str, Any]:
    overrides = arguments(data=sets, epochs=1)
    return {key: value for key, value in overrides.items() if key not in {"model", "name"}}


def test_all_data_sets_are_tried_and_then_the_first_halt_is_raised(
    narrow: Callable[[str], str], given: dict[str, Any], without_final_evaluation: None
) -> None:
    model: Any = YOLO(narrow("detect"))
    with pytest.raises(TrainingHaltedError) as caught:
        model.train(Spoilt, guard={"max_consecutive": 2, "snapshot_every": None, "report": False}, **given)
    assert str(caught.value).startswith("1 of 2 data sets halted (bad); trained: good. bad: ")
    assert caught.value.exit_code == 1
    assert model.trainer.trainer.__name__ == "StableSpoilt"
    assert model.metrics["bad"] is None
    assert model.metrics["good"]["fitness"] >= 0
    assert (model.trainer.save_dir / "multitrain_results.json").is_file()


def test_a_signal_ends_all_of_it(
    narrow: Callable[[str], str], given: dict[str, Any], interruptible: None, without_final_evaluation: None
) -> None:
    model: Any = YOLO(narrow("detect"))
    with pytest.raises(KeyboardInterrupt) as caught:
        model.train(Pressed, guard={"report": False}, **given)
    assert isinstance(caught.value.__cause__, TrainingInterruptedError)
    folder = model.trainer.save_dir
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["bad"]


def test_an_error_of_another_kind_is_skipped_as_stock_skips_it() -> None:
    sweep = Sweep(lambda **arguments: SimpleNamespace(**arguments))
    with sweep.until_interrupted():
        assert sweep(overrides={"a": 1}).overrides == {"a": 1}
    assert sweep.halts == {}


def test_a_halt_of_an_earlier_run_in_the_folder_is_none_of_this_one(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    file = tmp_path / "bad" / "summary.json"
    file.write_text(json.dumps({"status": "halted", "message": "Enough."}))
    done = SimpleNamespace(save_dir=tmp_path, metrics={"bad": None, "missing": None})
    written = file.stat().st_mtime
    assert of_processes(done, written) == {"bad": "Enough."}
    assert of_processes(done, written + 10.0) == {}
    file.write_text(json.dumps({"status": "failed", "message": "No file."}))
    assert of_processes(done, written) == {}


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the commands that would be started; those of the data set ``bad`` halt."""
    started: list[list[str]] = []

    def run(command: list[str], check: bool) -> None:
        started.append(command)
        words = dict(word.split("=", 1) for word in command if "=" in word)
        folder = Path(words["save_dir"])
        if "bad" in words["data"]:
            (folder / "summary.json").write_text(json.dumps({"status": "halted", "message": "Enough."}))
            raise subprocess.CalledProcessError(1, command)
        (folder / "weights").mkdir()
        metrics = {"metrics/mAP50-95(B)": 0.5, "fitness": 0.5}
        torch.save({"train_metrics": metrics}, folder / "weights" / "best.pt")

    monkeypatch.setattr(engine.subprocess, "run", run)
    return started


def test_data_sets_that_stock_trains_by_commands_are_trained_by_ours(
    narrow: Callable[[str], str], given: dict[str, Any], commands: list[list[str]]
) -> None:
    model: Any = YOLO(narrow("detect"))
    with pytest.raises(TrainingHaltedError, match=r"1 of 2 data sets halted \(bad\); trained: good. bad: Enough."):
        model.train(guard={"max_norm": 5.0}, preset="stable", **given)
    ours = [sys.executable, "-m", "yolo_stable", "yolo", "guard.max_norm=5.0", "preset=stable", "train"]
    assert [command[:7] for command in commands] == [ours, ours]
    assert not any(word.startswith("guard=") for command in commands for word in command)
    stock = [sys.executable, "-m", "ultralytics.cfg.__init__"]
    assert stock == engine._YOLO_CLI_COMMAND
    model.train(guard=False, **given)
    assert commands[-1][:4] == [*stock, "train"]


def test_the_trainings_of_a_tuning_are_guarded_and_a_halt_is_a_failed_one(
    monkeypatch: pytest.MonkeyPatch,
    narrow: Callable[[str], str],
    given: dict[str, Any],
    sets: list[str],
    commands: list[list[str]],
) -> None:
    monkeypatch.setattr("ultralytics.engine.tuner.plot_tune_results", lambda file: None)
    model: Any = YOLO(narrow("detect"))
    model.tune(iterations=2, guard={"max_norm": 5.0}, **{**given, "data": sets[1]})
    model.tune(iterations=1, guard=False, **{**given, "data": sets[0]})
    assert [command[2] for command in commands] == ["yolo_stable", "yolo_stable", "ultralytics.cfg.__init__"]
    assert "guard.max_norm=5.0" in commands[0]
    assert "_asked_of_tune" not in vars(model)


def test_ray_trains_what_was_asked_of_the_tuning(
    monkeypatch: pytest.MonkeyPatch, narrow: Callable[[str], str], given: dict[str, Any]
) -> None:
    seen: list[Any] = []

    def run_ray_tune(model: YOLO, *args: Any, iterations: int, **train_args: Any) -> None:
        assert not {"guard", "preset"} & set(train_args)  # Ultralytics looks at them before its workers do
        copied = pickle.loads(pickle.dumps(model))  # as a worker gets it
        monkeypatch.setattr("ultralytics.YOLO.train", lambda self, **given: seen.append(given))
        copied.train(lr0=0.1)

    monkeypatch.setattr("ultralytics.utils.tuner.run_ray_tune", run_ray_tune)
    YOLO(narrow("detect")).tune(use_ray=True, iterations=1, guard={"max_norm": 5.0}, **given)
    assert seen == [{"trainer": StableDetectionTrainer, "guard": {"max_norm": 5.0}, "lr0": 0.1}]


def test_the_command_is_stock_s_again_after_an_error() -> None:
    before = engine._YOLO_CLI_COMMAND
    with pytest.raises(OSError, match="full"), guarded_command(Asked.of(None, None)):
        raise OSError("full")
    assert before is engine._YOLO_CLI_COMMAND
    assert os.path.basename(before[0]).startswith("python")
