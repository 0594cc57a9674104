"""Ultralytics' trainers with the guard inside, one class per task.

They stand at module level because multi-GPU training pickles the class by reference.
"""

from __future__ import annotations

from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from .mixin import GuardedTrainerMixin as GuardedTrainerMixin


class StableDetectionTrainer(GuardedTrainerMixin, DetectionTrainer):
    """Ultralytics' ``DetectionTrainer`` with the guard."""


class StableSegmentationTrainer(GuardedTrainerMixin, SegmentationTrainer):
    """Ultralytics' ``SegmentationTrainer`` with the guard."""


class StablePoseTrainer(GuardedTrainerMixin, PoseTrainer):
    """Ultralytics' ``PoseTrainer`` with the guard."""


class StableOBBTrainer(GuardedTrainerMixin, OBBTrainer):
    """Ultralytics' ``OBBTrainer`` with the guard."""


class StableClassificationTrainer(GuardedTrainerMixin, ClassificationTrainer):
    """Ultralytics' ``ClassificationTrainer`` with the guard."""


class StableRTDETRTrainer(GuardedTrainerMixin, RTDETRTrainer):
    """Ultralytics' ``RTDETRTrainer`` with the guard."""


TRAINERS: dict[str, type[GuardedTrainerMixin]] = {
    "detect": StableDetectionTrainer,
    "segment": StableSegmentationTrainer,
    "pose": StablePoseTrainer,
    "obb": StableOBBTrainer,
    "classify": StableClassificationTrainer,
    "rtdetr": StableRTDETRTrainer,
}
"""Guarded trainer of each task; RT-DETR's models have one of their own."""
