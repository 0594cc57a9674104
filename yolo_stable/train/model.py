"""Model of a training: opened from what the call names, with the task that it is for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.cfg import TASK2MODEL
from ultralytics.utils import LOGGER

from .._shared.text import one_line
from ..errors import InvalidCallError
from .call import SUFFIX_OF_TASK, WHERE, TrainCall

WITHOUT_TRAINER = {
    "SAM": re.compile(r"((mobile_)?sam|sam_[bhl]|sam2(\.1)?_[tsbl]|sam3(\.\d)?)\.pt"),
    "FastSAM": re.compile(r"fastsam-[sx]\.pt"),
    "NAS": re.compile(r"yolo_nas_[sml]\.pt"),
}
"""Models that Ultralytics cannot train, with the names of their files in lower case."""


def open_model(name: str, key: str = "model") -> Any:
    """Return Ultralytics' ``YOLO`` or ``RTDETR`` of a file or a name, which may be downloaded.

    Args:
        name: Checkpoint or YAML.
        key: The argument that names it; all but ``model`` need weights.

    Raises:
        InvalidCallError: It cannot be opened, or not be trained.
    """
    if not name or Path(name).is_dir():
        raise InvalidCallError(f"{WHERE}: {key}={name} is {'a folder' if name else 'empty'}. Give a checkpoint (.pt).")
    for family, files in WITHOUT_TRAINER.items():
        if files.fullmatch(Path(name).name.lower()):
            raise InvalidCallError(f"{WHERE}: {key}={name} cannot be trained: Ultralytics has no trainer for {family}.")
    try:
        model = RTDETR(name) if "rtdetr" in Path(name).stem.lower() else YOLO(name)
    except Exception as error:
        # These come from looking up a layer by its name, and from a checkpoint that holds an unknown one.
        known = not isinstance(error, (KeyError, AttributeError, ModuleNotFoundError))
        what = f"Ultralytics has no layer {error}" if isinstance(error, KeyError) else one_line(error).rstrip(".")
        own = "" if known else ". If it is a layer of your own: --import FILE.py names the file that defines it"
        raise InvalidCallError(f"{WHERE}: {key}={name} cannot be used: {what}{own}.") from error
    if type(model) not in {RTDETR, YOLO} or not isinstance(model.model, nn.Module):
        if type(model) in {RTDETR, YOLO}:
            raise InvalidCallError(f"{WHERE}: {key}={name} is an exported model, which cannot be trained.")
        raise InvalidCallError(
            f"{WHERE}: {key}={name} is a {type(model).__name__} model, which this command does not train. This one does, with the"
            f" guard:\nyolo-stable yolo train model={shlex.quote(name)} data=data.yaml"
        )
    if key != "model" and not model.ckpt:
        raise InvalidCallError(f"{WHERE}: {key}={name} holds no weights. Give a checkpoint (.pt).")
    return model


def load_model(call: TrainCall) -> tuple[Any, str]:
    """Return the model and its file.

    Without ``model=``, Ultralytics' default for the task; where its weights can neither be found nor downloaded, its YAML.
    """
    if call.model is not None:
        return open_model(call.model), call.model
    weights = TASK2MODEL[call.task]
    try:
        return open_model(weights), weights
    except InvalidCallError:
        description = f"{Path(weights).stem}.yaml"
        LOGGER.warning(f"{weights} is not here and cannot be downloaded: training {description} from scratch.")
        return open_model(description), description


def task_of(model: Any, call: TrainCall, name: str | None) -> str:
    """Return the task of a loaded model.

    Raises:
        InvalidCallError: The guard does not know it, or the call names another one.
    """
    if model.task not in SUFFIX_OF_TASK:
        raise InvalidCallError(
            f"{WHERE}: model={name} is a model for {model.task!r}, which the guard does not support."
            f" It supports {', '.join(SUFFIX_OF_TASK)}."
        )
    if "task" in call.settings and model.task != call.task:
        raise InvalidCallError(f"{WHERE}: task={call.task}, but model={name} is a model for {model.task!r}.")
    return model.task


def task_by_name(call: TrainCall) -> str:
    """Return the task that the call names, or that the name of its model tells, as in yolo26n-seg.pt."""
    if "task" in call.settings or call.model is None:
        return call.task
    stem = Path(call.model).stem.lower()
    return next((task for task, suffix in SUFFIX_OF_TASK.items() if suffix and suffix in stem), call.task)
