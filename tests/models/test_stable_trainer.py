from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ultralytics

from yolo_stable import InvalidCallError, StableTrainer


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("detect", "StableDetectionTrainer"),
        ("segment", "StableSegmentationTrainer"),
        ("classify", "StableClassificationTrainer"),
        ("rtdetr", "StableRTDETRTrainer"),
    ],
)
def test_the_model_decides_which_trainer_it_is(arguments: Callable[..., dict[str, Any]], task: str, name: str) -> None:
    trainer: Any = StableTrainer(overrides=arguments(task))
    assert type(trainer).__name__ == name
    assert not isinstance(trainer, StableTrainer)


def test_stock_s_own_classes_take_it(
    monkeypatch: pytest.MonkeyPatch, arguments: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    given = arguments("obb")
    model = ultralytics.YOLO(given.pop("model"))
    monkeypatch.setattr("yolo_stable.trainer.mixin.GuardedTrainerMixin.train", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.train(trainer=StableTrainer, guard={"max_norm": 5.0}, **given)
    assert type(model.trainer).__name__ == "StableOBBTrainer"
    assert model.trainer.plan.guard.max_norm == 5.0


def test_it_is_nothing_to_derive_from() -> None:
    with pytest.raises(InvalidCallError, match="class Mine: StableTrainer only stands for the trainer of a task"):

        class Mine(StableTrainer):
            pass
