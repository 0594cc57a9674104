"""The drop-in classes are Ultralytics' own: they become each other as those do, and what is wrong is said before a run."""

from __future__ import annotations

import copy
import inspect
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import ultralytics
from ultralytics.engine import trainer as engine
from ultralytics.engine.model import Model
from ultralytics.nn.tasks import load_checkpoint

import yolo_stable
from yolo_stable import RTDETR, YOLO, YOLOE, InvalidCallError, YOLOWorld, load_hyp
from yolo_stable.errors import TrainingInterruptedError
from yolo_stable.models import drop_in


@pytest.mark.parametrize("name", ["RTDETR", "YOLO", "YOLOE", "YOLOWorld"])
def test_each_is_a_subclass_with_the_name_and_the_signature_of_stock(name: str) -> None:
    ours, stock = getattr(yolo_stable, name), getattr(ultralytics, name)
    assert issubclass(ours, stock)
    assert ours.__name__ == name
    assert inspect.signature(ours) == inspect.signature(stock)


@pytest.mark.parametrize(
    ("stock", "ours"),
    [(ultralytics.RTDETR, RTDETR), (ultralytics.YOLOWorld, YOLOWorld), (ultralytics.YOLOE, YOLOE)],
    ids=["RTDETR", "YOLOWorld", "YOLOE"],
)
def test_a_model_of_another_kind_makes_it_ours_of_that_kind(
    monkeypatch: pytest.MonkeyPatch, stock: type, ours: type
) -> None:
    def becomes(self: Any, *args: Any, **kwargs: Any) -> None:  # as Ultralytics does
        self.__class__ = stock

    monkeypatch.setattr(ultralytics.YOLO, "__init__", becomes)
    assert type(YOLO("any.pt")) is ours


def test_a_detection_transformer_makes_it_ours(narrow: Callable[[str], str]) -> None:
    model = YOLO(narrow("rtdetr"), task="detect")
    assert type(model) is RTDETR
    assert type(YOLO(model)) is RTDETR


class Own(YOLO):
    """A user's own subclass."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mine = 7


def test_it_is_copied_and_pickled_and_derived_from(narrow: Callable[[str], str]) -> None:
    model = Own(narrow("detect"))
    for twin in (model, copy.deepcopy(model), copy.copy(model), pickle.loads(pickle.dumps(model)), Own(model)):
        assert type(twin) is Own
        assert isinstance(twin, ultralytics.YOLO)
        assert (twin.mine, twin.task, twin.model_name) == (7, "detect", narrow("detect"))
    assert type(YOLO(ultralytics.YOLO(narrow("segment")))) is YOLO


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"guard": {"max_nrom": 5.0}}, "guard has no setting 'max_nrom'. Did you mean 'max_norm'?"),
        ({"guard": 3}, "guard=3 is not allowed. It must be a dict of settings such as {'max_norm': 5.0}."),
        ({"preset": "stabel"}, "There is no preset 'stabel'. Did you mean 'stable'?"),
        ({"preset": "stable", "guard": False}, "guard=False trains as stock, without preset='stable'."),
        ({"trainer": 3}, "trainer=3 is not possible. Give a class of Ultralytics' trainers."),
        (
            {"trainer": yolo_stable.StableSegmentationTrainer},
            "StableSegmentationTrainer trains models for segment, but",
        ),
        ({"trainer": yolo_stable.StableRTDETRTrainer}, "trains only RT-DETR, and this model is none."),
    ],
    ids=["setting", "guard", "preset", "both", "trainer", "task", "network"],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_is_wrong_is_said_before_anything_is_written(
    narrow: Callable[[str], str], tmp_path: Path, given: dict[str, Any], says: str, several: bool
) -> None:
    data = ["a.yaml", "b.yaml"] if several else "a.yaml"
    with pytest.raises(InvalidCallError) as caught:
        YOLO(narrow("detect")).train(data=data, project=str(tmp_path), **given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, arguments_in: Callable[..., dict[str, Any]], shapes: Callable[..., str]
) -> YOLO:
    """Return a model trained for an epoch, with a lambda among its callbacks."""
    given = arguments_in(tmp_path_factory.mktemp("trained"), data=shapes(train=4, val=4), epochs=1, nbs=64)
    model = YOLO(given.pop("model"))
    model.add_callback("on_train_start", lambda trainer: setattr(trainer, "seen", True))
    model.train(**given, guard={"max_norm": 5.0, "report": False})
    return model


def test_a_training_leaves_what_stock_leaves_on_the_model(trained: YOLO) -> None:
    trainer: Any = trained.trainer
    assert trainer.__class__ is yolo_stable.StableDetectionTrainer
    assert trainer.seen
    assert trainer.guard.config.max_norm == 5.0
    assert trained.metrics is trainer.validator.metrics
    assert trained.overrides["model"] == str(trainer.best)
    assert set(trained.overrides) == {"model", "task", "data", "imgsz", "single_cls"}
    assert trainer.last.is_file()


def test_its_checkpoints_have_nothing_of_ours(trained: YOLO) -> None:
    trainer: Any = trained.trainer
    for path in (trainer.best, trainer.last):
        network, checkpoint = load_checkpoint(path)
        assert not {"guard", "preset"} & {*checkpoint["train_args"], *vars(network)["args"]}
        assert b"yolo_stable" not in path.read_bytes()


def test_it_is_copied_after_a_training_without_its_trainer_as_stock_is(trained: YOLO) -> None:
    without = copy.copy(trained)
    without.trainer = None
    twin: Any = copy.deepcopy(without)
    network: Any = trained.model
    assert twin.__class__ is YOLO
    assert twin.model is not network
    assert all(map(torch.equal, twin.model.state_dict().values(), network.state_dict().values()))


def test_without_the_guard_it_is_stock(
    monkeypatch: pytest.MonkeyPatch, narrow: Callable[[str], str], tmp_path: Path
) -> None:
    seen: dict[str, Any] = {}
    monkeypatch.setattr(ultralytics.YOLO, "train", lambda self, **given: seen.update(given))
    YOLO(narrow("detect")).train(guard=False, data="a.yaml", epochs=1)
    assert seen == {"trainer": None, "data": "a.yaml", "epochs": 1}


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_ends_a_script_and_not_one_training_of_it(
    number: signal.Signals, raised: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(drop_in.LOGGER, "warning", said.append)
    with pytest.raises(raised) as caught, drop_in.ending_as_stock_does():
        raise TrainingInterruptedError("Saved last.pt.", number)
    assert not isinstance(caught.value, Exception)
    assert isinstance(caught.value.__cause__, TrainingInterruptedError)
    if number == signal.SIGTERM:
        assert caught.value.args == (143,)
        assert said == ["Saved last.pt."]


def test_a_tuning_starts_from_the_values_of_the_preset(
    narrow: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def tune(self: Any, use_ray: bool, iterations: int, **kwargs: Any) -> None:
        seen.update(kwargs, command=list(engine._YOLO_CLI_COMMAND))

    monkeypatch.setattr(Model, "tune", tune)
    YOLO(narrow("detect")).tune(data="d.yaml", preset="stable", momentum=0.5, guard={"max_norm": 5.0})
    stable = load_hyp("stable")
    assert {key: seen[key] for key in stable} == {**stable, "momentum": 0.5}
    assert "guard.max_norm=5.0" in seen["command"]
    assert not [word for word in seen["command"] if word.startswith("preset=")]
