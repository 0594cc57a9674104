"""Stable trainer: stands for the guarded trainer of whatever model it is called with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ultralytics
from ultralytics.utils import DEFAULT_CFG

from ..errors import InvalidCallError
from ..presets.run_plan import checkpoint_to_resume
from ..trainer.trainers import GuardedTrainerMixin, guarded


class StableTrainer:
    """The guarded trainer of a model's task: ``YOLO("yolo26n-seg.pt").train(trainer=StableTrainer)``.

    Calling it makes a trainer of another class, such as ``StableSegmentationTrainer``, which the model decides.
    """

    def __new__(  # type: ignore[misc] # what is made is no instance of this
        cls, cfg: Any = DEFAULT_CFG, overrides: dict[str, Any] | None = None, _callbacks: Any = None
    ) -> GuardedTrainerMixin:
        """Make the trainer; takes what every trainer takes."""
        given = overrides or {}
        name = checkpoint_to_resume(given) or given.get("model") or getattr(cfg, "model", None)
        task = given.get("task")
        if name is None:
            name = ultralytics.cfg.TASK2MODEL[task or "detect"]
        # Opening it is how Ultralytics finds out, and draws random numbers; the trainer seeds them.
        of_rtdetr = "rtdetr" in Path(name).stem.lower()  # as Ultralytics' command decides
        model = ultralytics.RTDETR(name) if of_rtdetr else ultralytics.YOLO(name, task=task)
        return guarded(model._smart_load("trainer"))(cfg, overrides, _callbacks)

    def __init_subclass__(cls, **options: Any) -> None:
        raise InvalidCallError(
            f"class {cls.__name__}: StableTrainer only stands for the trainer of a task. Derive from that, such as"
            " StableDetectionTrainer or guarded(MyTrainer)."
        )
