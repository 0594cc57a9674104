"""Found loggers: those that Ultralytics logs a run to, and that can take what the guard has to say."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import ModuleType

from .clearml import ClearML
from .comet import Comet
from .logger import Maker
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .wandb import WeightsAndBiases

PLACE = "ultralytics.utils.callbacks."
MAKERS: dict[str, Maker] = {
    "tensorboard": TensorBoard.of,
    "wb": WeightsAndBiases.of,
    "mlflow": MLflow.of,
    "clearml": ClearML.of,
    "comet": Comet.of,
}
"""By the module of Ultralytics' callbacks. Its others take numbers of epochs alone: DVC, Ray Tune and the Platform."""


def in_use(callbacks: Mapping[str, Iterable[object]]) -> list[tuple[Maker, ModuleType]]:
    """Return the makers of the loggers that a trainer calls, each with its module; whether one is open its maker tells.

    Ultralytics registers those callbacks that its settings allow, such as ``yolo settings tensorboard=True``.

    Args:
        callbacks: Of the trainer, by event.
    """
    called = {getattr(callback, "__module__", None) for those in callbacks.values() for callback in those}
    places = {f"{PLACE}{name}": make for name, make in MAKERS.items()}
    return [(make, sys.modules[place]) for place, make in places.items() if place in called and place in sys.modules]
