"""Trainer choice: the guarded class for what a call names as its trainer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ultralytics
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.utils import LOGGER

from .._shared.shell_text import beneath
from ..errors import InvalidCallError
from ..trainer.guard_setup import (
    refuse_a_loop_that_asks_nobody,
    refuse_a_model_of_another_task,
    refuse_a_step_that_would_be_lost,
)
from ..trainer.trainers import GuardedTrainerMixin, guarded
from .stable_trainer import StableTrainer


def choose(trainer: Any, model: Any, expected: type, *, must: bool) -> Any:
    """Return what trains a model.

    Args:
        trainer: As given; None or ``StableTrainer``: the model decides.
        model: Ultralytics' ``YOLO`` or another of its classes.
        expected: The trainer of its task.
        must: Refuse what cannot be guarded, instead of using it as it is with a line that says so.

    Raises:
        InvalidCallError: It is nothing that can be called, or trains another task than the model's.
    """
    if trainer is None or trainer is StableTrainer:
        trainer = expected
    if isinstance(trainer, functools.partial) and isinstance(trainer.func, type):
        return functools.partial(choose(trainer.func, model, expected, must=must), *trainer.args, **trainer.keywords)
    if not callable(trainer):
        raise InvalidCallError(f"trainer={trainer!r} is not possible. Give a class of Ultralytics' trainers.")
    try:
        kind = guarded(trainer)  # type: ignore[arg-type] # what is no class of a trainer is refused there
        refuse_a_step_that_would_be_lost(kind, GuardedTrainerMixin)
        refuse_a_loop_that_asks_nobody(kind)
    except InvalidCallError as error:
        why = f"trainer={_name(trainer)} cannot be guarded: {error}"
        if must:
            raise InvalidCallError(why) from error
        return trainer if isinstance(trainer, type) and _say(why) else _AsGiven(trainer, why)
    of_rtdetr = isinstance(model, ultralytics.RTDETR)
    stock_network = kind.get_model.__module__.startswith("ultralytics.")  # type: ignore[attr-defined]
    if issubclass(kind, RTDETRTrainer) != of_rtdetr and stock_network:  # both are for detection
        raise InvalidCallError(
            f"trainer={_name(trainer)} trains {'other models than' if of_rtdetr else 'only'} RT-DETR, and this model is"
            f" {'one' if of_rtdetr else 'none'}. Leave trainer= out."
        )
    refuse_a_model_of_another_task(kind, {"task": model.task, "model": model.overrides.get("model")})
    return kind


class _AsGiven:
    """Makes a trainer by the user's own function, and says so when what it makes has no guard."""

    def __init__(self, make: Callable[..., Any], why: str) -> None:
        self._make, self._why = make, why

    def __call__(self, **arguments: Any) -> Any:
        trainer = self._make(**arguments)
        if not isinstance(trainer, GuardedTrainerMixin):
            _say(self._why)
        return trainer


def _say(why: str) -> bool:
    LOGGER.warning(beneath(f"{why} This training runs without the guard."))
    return True


def _name(trainer: Any) -> str:
    return getattr(trainer, "__name__", type(trainer).__name__)
