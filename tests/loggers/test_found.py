"""Which loggers are found: those that Ultralytics calls for this trainer and has opened, and no others."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import ultralytics.utils.callbacks as place
from ultralytics.utils.callbacks import get_default_callbacks

from yolo_stable.loggers.clearml import ClearML
from yolo_stable.loggers.comet import Comet
from yolo_stable.loggers.found import MAKERS, PLACE, in_use
from yolo_stable.loggers.mlflow import MLflow
from yolo_stable.loggers.tensorboard import TensorBoard
from yolo_stable.loggers.wandb import WeightsAndBiases

ATTRIBUTES = {
    "tensorboard": ["WRITER = SummaryWriter(", "WRITER = None"],
    "wb": ["import wandb as wb", "wb.run"],
    "mlflow": ["import mlflow", "mlflow.active_run()"],
    "clearml": ["from clearml import Task", "Task.current_task()"],
    "comet": ["import comet_ml", "comet_ml.get_running_experiment()"],
}
"""Where Ultralytics' modules have what they open."""


def module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return a module of callbacks that is imported."""
    made = ModuleType(f"{PLACE}{name}")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def callback_of(name: str) -> Any:
    def on_fit_epoch_end(trainer: Any) -> None: ...

    on_fit_epoch_end.__module__ = f"{PLACE}{name}"
    return on_fit_epoch_end


@pytest.mark.parametrize("name", MAKERS)
def test_ultralytics_holds_them_where_they_are_looked_for(name: str) -> None:
    source = (Path(str(place.__file__)).parent / f"{name}.py").read_text(encoding="utf-8")
    assert [words for words in ATTRIBUTES[name] if words not in source] == []


def test_every_logger_of_ultralytics_is_known_or_takes_epochs_alone() -> None:
    modules = {path.stem for path in Path(str(place.__file__)).parent.glob("*.py")} - {"__init__", "base"}
    assert modules == {*MAKERS, "dvc", "raytune", "platform"}


def test_one_that_is_imported_but_not_called_is_not_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of W&B that the user's own script has opened is none of ours where Ultralytics' settings have it off."""
    module("wb", monkeypatch)
    tensorboard = module("tensorboard", monkeypatch)
    callbacks = {"on_fit_epoch_end": [print, callback_of("tensorboard")], "teardown": []}
    assert in_use(callbacks) == [(MAKERS["tensorboard"], tensorboard)]


def test_the_default_callbacks_are_no_loggers() -> None:
    assert in_use(get_default_callbacks()) == []


RUN = SimpleNamespace(info=SimpleNamespace(run_id="1"))


@pytest.mark.parametrize(
    ("of", "opened", "closed"),
    [
        (TensorBoard.of, {"WRITER": object()}, {"WRITER": None}),
        (
            WeightsAndBiases.of,
            {"wb": SimpleNamespace(run=SimpleNamespace(define_metric=lambda name, **kwargs: None))},
            {"wb": SimpleNamespace(run=None)},
        ),
        (
            MLflow.of,
            {"mlflow": SimpleNamespace(active_run=lambda: RUN)},
            {"mlflow": SimpleNamespace(active_run=lambda: None)},
        ),
        (
            ClearML.of,
            {"Task": SimpleNamespace(current_task=lambda: SimpleNamespace(get_logger=object))},
            {"Task": SimpleNamespace(current_task=lambda: None)},
        ),
        (
            Comet.of,
            {"comet_ml": SimpleNamespace(get_running_experiment=object)},
            {"comet_ml": SimpleNamespace(get_running_experiment=lambda: None)},
        ),
    ],
    ids=MAKERS,
)
def test_one_is_made_of_what_is_open(of: Any, opened: dict[str, Any], closed: dict[str, Any]) -> None:
    assert of(SimpleNamespace(**opened)) is not None
    assert of(SimpleNamespace(**closed)) is None
    assert of(SimpleNamespace()) is None, "the library is not installed"
    assert of(SimpleNamespace(**dict.fromkeys(opened))) is None, "Ultralytics could not import it"
