"""Carries out a checked call of ``yolo-stable train``."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from ultralytics import RTDETR, YOLO
from ultralytics.utils import LOGGER

from .errors import InvalidCallError, TrainingHaltedError, YoloStableError
from .guard import GuardConfig
from .plan import AUTO, choose_preset
from .presets import load_hyp
from .train_call import SUFFIX_OF_TASK, WHERE, TrainCall, check_arguments, check_data, one_line
from .trainers import TRAINERS


def run(call: TrainCall) -> Path:
    """Check everything, then train.

    Args:
        call: The parsed call.

    Returns:
        The run's folder.

    Raises:
        InvalidCallError: Something in the call is wrong; nothing has been written.
        YoloStableError: Training failed or was halted.
    """
    GuardConfig.from_mapping(call.guard)
    settings = dict(call.settings)
    probe = load_hyp(call.preset) if call.preset else {}
    check_arguments({**probe, **{k: v for k, v in settings.items() if k != "cfg"}})
    data = call.resolve_data()
    check_data(data, call.task)
    model, name = _load_model(call)
    task = "rtdetr" if isinstance(model, RTDETR) else str(model.task)
    if task not in TRAINERS:
        raise InvalidCallError(
            f"{WHERE}: model={name} is a model for {task!r}, which the guard does not know: {', '.join(TRAINERS)}."
        )
    if task not in {call.task, "rtdetr"}:
        if "task" in call.settings:
            raise InvalidCallError(f"{WHERE}: task={call.task}, but model={name} is a model for {task!r}.")
        check_data(_data_for(call, task), task)
        data = _data_for(call, task)
    preset = call.preset or (None if settings.get("resume") else AUTO)
    if preset == AUTO:
        starts_from = settings["pretrained"] if isinstance(settings.get("pretrained"), str) else name
        LOGGER.info("preset '{}': {}.".format(*choose_preset(starts_from)))
    try:
        model.train(trainer=TRAINERS[task], data=data, guard=dict(call.guard), preset=preset, **settings)
    except subprocess.CalledProcessError as error:  # the workers of a multi-GPU run have said why
        raise YoloStableError(f"A worker of the multi-GPU run ended with exit code {error.returncode}.") from error
    except (TrainingHaltedError, InvalidCallError):
        raise
    trainer: Any = model.trainer
    return Path(trainer.save_dir)


def _data_for(call: TrainCall, task: str) -> str:
    """Return the data set for the task that the model turned out to have."""
    return TrainCall(data=call.data, settings={**call.settings, "task": task}).resolve_data()


def _load_model(call: TrainCall) -> tuple[Any, str]:
    """Return the model and what it was made from.

    Without ``model=``, the pretrained yolo11n of the task; where its weights are neither here nor to be had, its YAML.
    """
    if call.model is not None:
        return _open(call.model), call.model
    stem = f"yolo11n{SUFFIX_OF_TASK[call.task]}"
    try:
        return _open(f"{stem}.pt"), f"{stem}.pt"
    except InvalidCallError:
        LOGGER.warning(f"{stem}.pt is not here and cannot be downloaded: training {stem}.yaml from scratch.")
        return _open(f"{stem}.yaml"), f"{stem}.yaml"


def _open(name: str) -> Any:
    try:
        return RTDETR(name) if "rtdetr" in Path(name).stem.lower() else YOLO(name)
    except Exception as error:
        raise InvalidCallError(f"{WHERE}: model={name} cannot be used: {one_line(error)}") from error
