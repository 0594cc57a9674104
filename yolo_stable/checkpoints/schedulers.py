"""Schedules beside the optimizer: the learning rate's, and that of YOLO26's loss weights."""

from __future__ import annotations

from typing import Any

from ..guard.wrappers import unwrap


def schedules_of(trainer: Any) -> dict[str, Any]:
    """Return the schedules of an Ultralytics trainer, for ``StepGuard(schedules=...)``.

    They ask the trainer each time, as it makes a new scheduler when the number of epochs changes, and its criterion with the
    first batch only.

    Args:
        trainer: Has ``scheduler`` and ``model``.
    """
    return {"scheduler": _Scheduler(trainer), "criterion": _Criterion(trainer)}


class _Scheduler:
    """The position in the learning-rate schedule; its numbers come from the arguments, which may have changed."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        return {"last_epoch": int(self._trainer.scheduler.last_epoch)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._trainer.scheduler.last_epoch = state["last_epoch"]


class _Criterion:
    """How far YOLO26's loss has shifted its weight from one head to the other; other losses have no schedule."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        updates = getattr(getattr(self._model(), "criterion", None), "updates", None)
        return {} if updates is None else {"updates": int(updates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        model = self._model()
        if "updates" not in state or not hasattr(model, "init_criterion"):
            return
        criterion = model.init_criterion()  # anew: only so are its weights those before the first update
        if not hasattr(criterion, "update"):
            return
        if state["updates"]:
            criterion.updates = state["updates"] - 1
            criterion.update()
        model.criterion = criterion

    def _model(self) -> Any:
        return unwrap(self._trainer.model)
