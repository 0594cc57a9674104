"""Guard set-up: builds the guard of a trainer, and refuses classes that would bypass it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from ultralytics import YOLO
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from ..checkpoints.schedulers import schedules_of
from ..errors import InvalidCallError
from ..guard import StepGuard
from .banner import require_finite_start
from .services import Services


def guard_of(services: Services, scaler: Any, switch_precision: Callable[[], str | None]) -> StepGuard:
    """Return the guard of a trainer before its first step.

    Args:
        services: Of the trainer; they are told what the guard does.
        scaler: The loop's GradScaler.
        switch_precision: Makes the loop compute in the next safer precision and returns its name; None: there is none.

    Raises:
        UnhealthyStartError: The weights are not finite.
        InvalidCallError: The device cannot be guarded.
    """
    trainer = services.view
    require_finite_start(unwrap_model(trainer.model), trainer.optimizer)
    return StepGuard(
        trainer.model,
        trainer.optimizer,
        scaler=scaler,
        ema=trainer.ema,
        schedules=schedules_of(trainer),
        switch_precision=switch_precision,
        on_reject=services.incidents.on_reject,
        on_escalation=services.incidents.on_escalation,
        tell=LOGGER.warning if RANK in {-1, 0} else _say_nothing,
        again=services.window.loss_again,
        config=trainer.plan.guard,
    )


def as_given(cfg: Any, **arguments: Any) -> dict[str, Any]:
    """Return a trainer's arguments by name, as Ultralytics passes them: a class of the user's need not take ``cfg``."""
    return arguments if cfg is DEFAULT_CFG else {"cfg": cfg, **arguments}


def require_guardable(kind: type, mixin: type, overrides: Mapping[str, Any]) -> None:
    """Refuse a trainer before it is made.

    Args:
        kind: Its class.
        mixin: The guarded mixin in its bases.
        overrides: As passed to it.

    Raises:
        InvalidCallError: See the two refusals.
    """
    refuse_a_step_that_would_be_lost(kind, mixin)
    refuse_a_model_of_another_task(kind, overrides)


def refuse_a_step_that_would_be_lost(kind: type, mixin: type) -> None:
    """Refuse a class that has an ``optimizer_step`` of its own behind the mixin, where nobody would call it.

    Args:
        kind: The trainer's class.
        mixin: The guarded mixin in its bases.

    Raises:
        InvalidCallError: Says where to put it instead.
    """
    for base in kind.__mro__[kind.__mro__.index(mixin) + 1 :]:
        if "optimizer_step" in vars(base) and base.__module__ != "ultralytics.engine.trainer":
            raise InvalidCallError(
                f"{base.__name__}.optimizer_step would never be called: the guard takes the step. Put what it does into a"
                f" subclass in front of {mixin.__name__} that calls super().optimizer_step(), or into an optimizer hook."
            )


def refuse_a_loop_that_asks_nobody(kind: type) -> None:
    """Refuse a class with a training loop of its own, in which the guard might never be asked.

    Args:
        kind: The trainer's class. One whose ``_do_train`` calls that of Ultralytics keeps its loop.

    Raises:
        InvalidCallError: Names the class.
    """
    loop: Any = getattr(kind, "_do_train", None)
    code = getattr(loop, "__code__", None)
    if not loop.__module__.startswith("ultralytics.") and code is not None and "_do_train" not in code.co_names:
        raise InvalidCallError(
            f"{kind.__name__} has a training loop of its own ({loop.__qualname__}). Put StepGuard into it, as in any PyTorch"
            " loop."
        )


def refuse_a_guard_behind_the_loop(kind: type, mixin: type) -> None:
    """Refuse a class in which Ultralytics' trainer stands before the mixin: the guard would never be asked.

    Args:
        kind: The trainer's class.
        mixin: The guarded mixin in its bases.

    Raises:
        InvalidCallError: Gives the order that works.
    """
    order = kind.__mro__
    if BaseTrainer in order[: order.index(mixin)]:
        bases = [base.__name__ for base in kind.__bases__ if base is not mixin]
        raise InvalidCallError(
            f"class {kind.__name__}: {mixin.__name__} stands behind {bases[0]}, where it guards nothing. Put it first:"
            f" class {kind.__name__}({', '.join([mixin.__name__, *bases])})."
        )


def refuse_a_model_of_another_task(kind: type, overrides: Mapping[str, Any]) -> None:
    """Refuse to train a model with the network and the loss of another task; Ultralytics fails somewhere within.

    Args:
        kind: The trainer's class. One with a ``get_model`` of its own may train anything.
        overrides: As passed to the trainer; without a task, its own is meant.

    Raises:
        InvalidCallError: Names both tasks.
    """
    task, own = overrides.get("task"), _tasks().get(_stock_of(kind))
    build: Any = getattr(kind, "get_model", None)
    if task in _tasks().values() and own not in (None, task) and build.__module__.startswith("ultralytics."):
        raise InvalidCallError(
            f"{kind.__name__} trains models for {own}, but model={overrides.get('model')} is one for {task}. Pass"
            " trainer=StableTrainer, which picks by the model."
        )


def _stock_of(kind: type) -> type | None:
    """Return the trainer of a task that a class derives from; a segmentation trainer derives from that of detection."""
    return next((base for base in kind.__mro__ if base in _tasks()), None)


@functools.cache
def _tasks() -> dict[type | None, str]:
    """Return the task of each of Ultralytics' trainers of tasks."""
    return {parts["trainer"]: task for task, parts in YOLO.__new__(YOLO).task_map.items()}


def _say_nothing(what: str) -> None:
    """Leave it to the first rank to tell what all ranks have found."""
