"""``yolo-stable yolo``: Ultralytics' own command line, with the guard in every training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ultralytics
import yaml
from ultralytics.engine import trainer as engine
from ultralytics.models.yolo.detect import DetectionTrainer
from verb import carried_out

from yolo_stable.cli import entrypoint
from yolo_stable.cli.yolo import taken_out
from yolo_stable.errors import InvalidCallError
from yolo_stable.trainer.trainers import StableDetectionTrainer

SMALL = "epochs=1 imgsz=32 batch=8 nbs=8 device=cpu plots=False workers=0 val=False"
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return ``yolo-stable yolo`` in an empty folder; it must leave Ultralytics and the arguments as they were."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        models, words_of_process = [ultralytics.YOLO, ultralytics.RTDETR], list(engine._YOLO_CLI_COMMAND)
        done = carried_out(capsys, monkeypatch, "yolo", *words)
        assert sys.argv == ["yolo-stable", "yolo", *map(str, words)]
        assert models == [ultralytics.YOLO, ultralytics.RTDETR]
        assert words_of_process == engine._YOLO_CLI_COMMAND
        return done

    return run


@pytest.fixture
def call(narrow: Callable[[str], str], shapes: Callable[..., str]) -> list[str]:
    return [f"data={shapes()}", f"model={narrow('detect')}", *SMALL.split()]


def log(run: Path) -> dict[str, Any]:
    return yaml.safe_load((run / "args.yaml").read_text()).get("guard", {}) if (run / "guard.jsonl").exists() else {}


def test_a_training_is_guarded_with_the_words_that_are_ours(command: Command, call: list[str], tmp_path: Path) -> None:
    words = ("detect", "train", *call, "guard.max_total=77", "--preset", "finetune", f"project={tmp_path}", "name=run")
    code, _, err = command(*words)
    assert (code, err) == (0, "")
    assert log(tmp_path / "run")["max_total"] == 77
    args = yaml.safe_load((tmp_path / "run" / "args.yaml").read_text())
    assert (args["preset"], args["lr0"], args["task"]) == ("finetune", 0.002, "detect")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "done"


def test_without_the_guard_it_is_stock(command: Command, call: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[type] = []

    def train(self: Any) -> None:
        made.append(type(self))
        raise InvalidCallError("enough")

    monkeypatch.setattr(DetectionTrainer, "train", train)
    monkeypatch.setattr(StableDetectionTrainer, "train", train)
    for words, kind in ((["guard=False"], DetectionTrainer), ([], StableDetectionTrainer)):
        assert command("train", *call, *words)[0] == 2
        assert made.pop() is kind


def test_a_halt_is_not_swallowed(
    command: Command, call: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = StableDetectionTrainer.preprocess_batch

    def preprocess_batch(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        batch = original(self, batch)
        return {**batch, "img": batch["img"] * float("nan")}

    monkeypatch.setattr(StableDetectionTrainer, "preprocess_batch", preprocess_batch)
    ours = ("guard.max_total=1", "guard.incidents=none", "guard.report=False", f"project={tmp_path}", "name=run")
    code, _, err = command("train", *call, *ours)
    assert code == 1
    assert err.startswith("yolo-stable: Training halted after ")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "halted"


def test_the_trainings_of_a_list_of_data_sets_are_processes_with_the_guard_in_them(
    command: Command, call: list[str], tmp_path: Path
) -> None:
    data, *others = call
    data = f"data=[{data.removeprefix('data=')!r}]"
    code, _, err = command(
        "train", data, *others, "guard.max_total=77", "guard.report=False", f"project={tmp_path / 'runs'}"
    )
    assert (code, err) == (0, "")
    (written,) = tmp_path.rglob("guard.jsonl")
    assert log(written.parent)["max_total"] == 77


def test_what_trains_nothing_is_ultralytics_own(command: Command, tmp_path: Path, narrow: Callable[[str], str]) -> None:
    code, _, err = command("version")
    assert (code, err) == (0, "")
    image = Path(ultralytics.__file__).parent / "assets" / "bus.jpg"
    code, _, err = command("predict", f"model={narrow('detect')}", f"source={image}", "imgsz=32", f"project={tmp_path}")
    assert (code, err) == (0, "")
    assert (tmp_path / "predict" / "bus.jpg").is_file()  # as by `yolo`, and unlike in Python, it is saved


@pytest.mark.parametrize(
    ("words", "code", "line"),
    [
        ("val guard.max_norm=5", 2, "yolo: 'val' trains nothing, so that guard and preset have no effect."),
        ("predict --preset stable", 2, "yolo: 'predict' trains nothing"),
        ("mode=export guard=False", 2, "yolo: 'export' trains nothing"),
        ("train guard=maybe", 2, "yolo: guard=maybe is not allowed. It must be True or False"),
        ("train guard=False guard.max_norm=5", 2, "yolo: guard=False trains without the guard, but guard.max_norm is"),
        ("train guard.max_nrom=5", 2, "guard has no setting 'max_nrom'. Did you mean 'max_norm'?"),
        ("train preset=stabel", 2, "There is no preset 'stabel'. Did you mean 'stable'?"),
        ("train epocs=3", 2, "yolo: 'epocs' is not a valid YOLO argument. Similar arguments are"),
        ("train model=gone.yaml data=gone.yaml", 1, "yolo: FileNotFoundError: 'gone.yaml' does not exist (--traceback"),
    ],
)
def test_a_wrong_call_is_one_line(command: Command, words: str, code: int, line: str) -> None:
    done = command(*words.split())
    assert done[0] == code
    assert done[2].startswith(f"yolo-stable: {line}")
    assert len(done[2].splitlines()) == 1


def test_ours_are_taken_out_in_any_form() -> None:
    assert taken_out(["train", "--guard.max_norm=none", "preset=a", "x=1"]) == (
        ["train", "x=1"],
        {"max_norm": None},
        "a",
    )
    assert taken_out(["guard=True", "preset=a"], "b") == ([], True, "b")
    assert taken_out(["val"]) == (["val"], None, None)


def test_a_model_of_another_kind_gets_the_settings_too(narrow: Callable[[str], str]) -> None:
    with entrypoint.guarded_models({"max_norm": 5.0}, "stable"):
        for name in (narrow("detect"), "yolov8s-world.yaml"):
            model: Any = ultralytics.YOLO(name)
            assert model.train.keywords == {"guard": {"max_norm": 5.0}, "preset": "stable"}
            assert model.tune.func.__self__ is model
