"""Ultralytics' trainers with the guard inside: one named class per task, and :func:`guarded` for any other."""

from __future__ import annotations

import copyreg
import functools
from typing import Any

from ultralytics import NAS, SAM, FastSAM
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.depth import DepthTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.models.yolo.semantic import SemanticSegmentationTrainer

from ..errors import InvalidCallError
from .mixin import GuardedTrainerMixin as GuardedTrainerMixin


class StableDetectionTrainer(GuardedTrainerMixin, DetectionTrainer):
    """Ultralytics' ``DetectionTrainer`` with the guard."""


class StableSegmentationTrainer(GuardedTrainerMixin, SegmentationTrainer):
    """Ultralytics' ``SegmentationTrainer`` with the guard."""


class StableSemanticSegmentationTrainer(GuardedTrainerMixin, SemanticSegmentationTrainer):
    """Ultralytics' ``SemanticSegmentationTrainer`` with the guard."""


class StableDepthTrainer(GuardedTrainerMixin, DepthTrainer):
    """Ultralytics' ``DepthTrainer`` with the guard."""


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
    "semantic": StableSemanticSegmentationTrainer,
    "depth": StableDepthTrainer,
    "pose": StablePoseTrainer,
    "obb": StableOBBTrainer,
    "classify": StableClassificationTrainer,
    "rtdetr": StableRTDETRTrainer,
}
"""Guarded trainer of each task; RT-DETR's models have one of their own."""

_MADE: dict[type, type[GuardedTrainerMixin]] = {kind.__bases__[1]: kind for kind in TRAINERS.values()}
"""Guarded class of each trainer that was asked for."""


class _Made(type):
    """Class of the classes that :func:`guarded` makes: pickle repeats the call, since no module has them by name."""


def guarded(trainer: type) -> type[GuardedTrainerMixin]:
    """Return the guarded class of an Ultralytics trainer, or of a subclass of one.

    The same class gives the same result, which is named ``Stable`` and its name, and can be pickled wherever the class can. One
    that has the guard already is returned as it is.

    Args:
        trainer: ``DetectionTrainer``, ``WorldTrainer``, your own subclass, ...

    Raises:
        InvalidCallError: It is no class of a trainer.

    Examples:
        >>> from ultralytics.models.yolo.detect import DetectionTrainer
        >>> guarded(DetectionTrainer).__name__
        'StableDetectionTrainer'
    """
    if isinstance(trainer, type) and issubclass(trainer, (FastSAM, NAS, SAM)):
        raise InvalidCallError(f"guarded({trainer.__name__}) is not possible: Ultralytics has no trainer for it.")
    if not (isinstance(trainer, type) and issubclass(trainer, BaseTrainer)):
        raise InvalidCallError(
            f"guarded({trainer!r}) is not possible. Give a class of Ultralytics' trainers, such as DetectionTrainer."
        )
    if issubclass(trainer, GuardedTrainerMixin):
        return trainer
    if trainer not in _MADE:
        namespace = {"__doc__": f"``{trainer.__name__}`` with the guard.", "__module__": trainer.__module__}
        _MADE[trainer] = _made_like(type(trainer))(
            f"Stable{trainer.__name__}", (GuardedTrainerMixin, trainer), namespace
        )
    return _MADE[trainer]


@functools.cache
def _made_like(meta: type) -> type[_Made]:
    """Return the class of a guarded class whose trainer has a metaclass, such as that of an abstract base."""
    if meta is type:
        return _Made
    made = type(f"_Made{meta.__name__}", (_Made, meta), {})
    copyreg.pickle(made, _reduce)  # type: ignore[arg-type] # the registry looks at the class of a class
    return made


def _reduce(kind: type) -> Any:
    """Pickle what was made as the call that makes it, and a subclass of it by its name."""
    plain = kind.__bases__[1] if isinstance(kind, _Made) and len(kind.__bases__) > 1 else None
    return (guarded, (plain,)) if plain is not None and _MADE.get(plain) is kind else kind.__qualname__


copyreg.pickle(_Made, _reduce)
