"""Ultralytics YOLO training that no bad batch can kill.

    from yolo_stable import YOLO  # was: from ultralytics import YOLO

    YOLO("yolo26n.pt").train(data="data.yaml", epochs=50)

Importing this package imports neither torch nor ultralytics; the names below do when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .errors import InvalidCallError as InvalidCallError
    from .errors import TrainingHaltedError as TrainingHaltedError
    from .errors import UnhealthyStartError as UnhealthyStartError
    from .errors import YoloStableError as YoloStableError
    from .guard import GuardConfig as GuardConfig
    from .guard import StepGuard as StepGuard
    from .models.drop_in import RTDETR as RTDETR
    from .models.drop_in import YOLO as YOLO
    from .models.drop_in import YOLOE as YOLOE
    from .models.drop_in import YOLOWorld as YOLOWorld
    from .models.stable_trainer import StableTrainer as StableTrainer
    from .presets.presets import load_hyp as load_hyp
    from .trainer.trainers import GuardedTrainerMixin as GuardedTrainerMixin
    from .trainer.trainers import StableClassificationTrainer as StableClassificationTrainer
    from .trainer.trainers import StableDepthTrainer as StableDepthTrainer
    from .trainer.trainers import StableDetectionTrainer as StableDetectionTrainer
    from .trainer.trainers import StableOBBTrainer as StableOBBTrainer
    from .trainer.trainers import StablePoseTrainer as StablePoseTrainer
    from .trainer.trainers import StableRTDETRTrainer as StableRTDETRTrainer
    from .trainer.trainers import StableSegmentationTrainer as StableSegmentationTrainer
    from .trainer.trainers import StableSemanticSegmentationTrainer as StableSemanticSegmentationTrainer
    from .trainer.trainers import guarded as guarded

_HOMES = {
    "errors": ("InvalidCallError", "TrainingHaltedError", "UnhealthyStartError", "YoloStableError"),
    "guard": ("GuardConfig", "StepGuard"),
    "models.drop_in": ("RTDETR", "YOLO", "YOLOE", "YOLOWorld"),
    "models.stable_trainer": ("StableTrainer",),
    "presets.presets": ("load_hyp",),
    "trainer.trainers": (
        "GuardedTrainerMixin",
        "StableClassificationTrainer",
        "StableDepthTrainer",
        "StableDetectionTrainer",
        "StableOBBTrainer",
        "StablePoseTrainer",
        "StableRTDETRTrainer",
        "StableSegmentationTrainer",
        "StableSemanticSegmentationTrainer",
        "guarded",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
