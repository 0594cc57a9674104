from __future__ import annotations

import abc
import functools
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.models.yolo.world import WorldTrainer
from ultralytics.utils import LOGGER

from yolo_stable import RTDETR, YOLO, InvalidCallError, StableDetectionTrainer, StableTrainer, guarded
from yolo_stable.models.trainer_choice import choose


class Mine(DetectionTrainer):
    """A user's own trainer."""


class OwnNetwork(SegmentationTrainer):
    def get_model(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_model(*args, **kwargs)


class OwnStep(DetectionTrainer):
    def optimizer_step(self) -> None:
        super().optimizer_step()


class OwnLoop(DetectionTrainer):
    def _do_train(self) -> None:
        self.run_callbacks("on_train_start")


class AroundTheLoop(DetectionTrainer):
    def _do_train(self) -> None:
        super()._do_train()


class OwnRTDETR(DetectionTrainer):
    def get_model(self, *args: Any, **kwargs: Any) -> Any:
        return RTDETRTrainer.get_model(self, *args, **kwargs)  # type: ignore[arg-type]


class Abstract(DetectionTrainer, abc.ABC):
    """A trainer with a metaclass."""


class Fake:
    def __init__(self, overrides: Any = None, _callbacks: Any = None) -> None: ...


@pytest.fixture(scope="module")
def model(narrow: Callable[[str], str]) -> YOLO:
    return YOLO(narrow("detect"))


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(LOGGER, "warning", lines.append)
    return lines


@pytest.mark.parametrize(
    ("given", "chosen"),
    [
        (None, StableDetectionTrainer),
        (StableTrainer, StableDetectionTrainer),
        (DetectionTrainer, StableDetectionTrainer),
        (StableDetectionTrainer, StableDetectionTrainer),
        (Mine, guarded(Mine)),
        (WorldTrainer, guarded(WorldTrainer)),
        (OwnNetwork, guarded(OwnNetwork)),
    ],
    ids=["none", "stable", "stock", "guarded", "own", "world", "own network"],
)
def test_a_class_is_guarded(model: YOLO, warnings: list[str], given: Any, chosen: type) -> None:
    assert choose(given, model, DetectionTrainer, must=False) is chosen
    assert warnings == []


def test_the_class_in_a_partial_is_guarded(model: YOLO) -> None:
    chosen = choose(functools.partial(Mine, _callbacks={}), model, DetectionTrainer, must=True)
    assert (chosen.func, chosen.keywords) == (guarded(Mine), {"_callbacks": {}})


@pytest.mark.parametrize("given", [Fake, OwnStep], ids=["no trainer", "own step"])
def test_a_class_that_cannot_be_guarded_is_used_as_it_is_with_one_line(
    model: YOLO, warnings: list[str], given: type
) -> None:
    assert choose(given, model, DetectionTrainer, must=False) is given
    assert len(warnings) == 1
    assert f"trainer={given.__name__} cannot be guarded: " in warnings[0]
    assert warnings[0].endswith("This training runs without the guard.")
    with pytest.raises(InvalidCallError, match=f"trainer={given.__name__} cannot be guarded"):
        choose(given, model, DetectionTrainer, must=True)


def test_a_function_is_called_and_what_it_made_is_looked_at(model: YOLO, warnings: list[str]) -> None:
    made: Any = object.__new__(StableDetectionTrainer)
    make = choose(lambda overrides, _callbacks: made, model, DetectionTrainer, must=False)
    assert make(overrides={}, _callbacks={}) is made
    assert warnings == []
    other: Any = object.__new__(DetectionTrainer)
    make = choose(lambda overrides, _callbacks: other, model, DetectionTrainer, must=False)
    assert make(overrides={}, _callbacks={}) is other
    assert "trainer=<lambda> cannot be guarded" in warnings[0]


def test_a_loop_of_ones_own_is_trained_as_given_and_that_is_said(model: YOLO, warnings: list[str]) -> None:
    assert choose(OwnLoop, model, DetectionTrainer, must=False) is OwnLoop
    assert len(warnings) == 1
    assert "OwnLoop has a training loop of its own" in warnings[0]
    assert "runs without the guard" in warnings[0]
    with pytest.raises(InvalidCallError, match="Put StepGuard into it"):
        choose(OwnLoop, model, DetectionTrainer, must=True)
    assert choose(AroundTheLoop, model, DetectionTrainer, must=True) is guarded(AroundTheLoop)


def test_a_trainer_that_builds_its_own_network_may_train_rtdetr(narrow: Callable[[str], str]) -> None:
    assert choose(OwnRTDETR, RTDETR(narrow("rtdetr")), RTDETRTrainer, must=True) is guarded(OwnRTDETR)


def test_a_trainer_with_a_metaclass_is_guarded_and_pickled(model: YOLO) -> None:
    kind = choose(Abstract, model, DetectionTrainer, must=True)
    assert kind.__mro__[2] is Abstract
    assert pickle.loads(pickle.dumps(kind)) is kind
