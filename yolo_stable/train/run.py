"""Run of a checked call of ``yolo-stable train``."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics import RTDETR, YOLO
from ultralytics.utils import LOGGER

from .._shared.error_text import one_line
from .._shared.shell_text import AGAIN, beneath
from ..augment import named
from ..autopsy.advice import Names
from ..autopsy.advice import named as filled
from ..checkpoints.reader import load_good
from ..errors import InvalidCallError, YoloStableError
from ..incidents.own_layers import make_known
from ..presets.guard_settings import GuardSettings
from ..presets.presets import AUTO, hyperparameters
from ..presets.run_plan import separate
from ..trainer.trainers import TRAINERS, GuardedTrainerMixin
from .call import SUFFIX_OF_TASK, WHERE, TrainCall
from .checks import check_arguments, check_data, planned_folder
from .device_gate import devices_of, set_switches, warn_of_device
from .inject import faulty
from .run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A call that has been checked whole: what is left is to train."""

    model: Any
    """Ultralytics' ``YOLO`` or ``RTDETR``, loaded."""
    task: str
    arguments: dict[str, Any]
    """For its ``train``, the guard's settings and the preset among them."""
    folder: RunFolder | None
    """Of a new run; None of one that is resumed."""

    @property
    def trainer(self) -> type[GuardedTrainerMixin]:
        """The class that trains it."""
        return TRAINERS["rtdetr" if isinstance(self.model, RTDETR) else self.task]


def run(call: TrainCall, inject: str | None = None) -> Path:
    """Check everything, then train.

    Args:
        call: The parsed call.
        inject: Faults to put in on purpose, see ``inject.py``.

    Returns:
        The run's folder.

    Raises:
        InvalidCallError: Something in the call is wrong; nothing has been written.
        YoloStableError: Training failed or was halted.
    """
    return _train(prepare(call), inject)


def prepare(call: TrainCall) -> Ready:
    """Check a call with the help of Ultralytics, and load its model.

    Args:
        call: The parsed call.

    Raises:
        InvalidCallError: Something in it is wrong; nothing has been written.
        YoloStableError: The checkpoint to resume is damaged.
    """
    GuardSettings.of(call.guard)
    settings = dict(call.settings)
    values = {**(hyperparameters(call.preset) if call.preset not in (None, AUTO) else {}), **settings}
    check_arguments(values)
    set_switches(call.switches)
    _import_layers(call, values.get("device"))
    if call.validate is None:
        warn_of_device(values.get("device"), lambda line: LOGGER.warning(beneath(line)))
    resume = settings.get("resume")
    if not resume:
        RunFolder(planned_folder({**values, "task": _task_by_name(call)}), WHERE)
    for key in ("pretrained", "distill_model"):
        if isinstance(values.get(key), str):
            _open(values[key], key=key)
    name, model = resume if isinstance(resume, str) else call.model, None
    if resume and name is not None and name.lower().endswith(".pt") and Path(name).is_file():
        load_good(Path(name).absolute())  # says which older one is good
    if name is not None and Path(name).is_file():  # it knows for which task the data have to be
        model = _open(name)
    ours = {"guard": dict(call.guard) or None, "preset": call.preset}
    if resume:
        _require_resumable(model, name, call)
        separate({**settings, **ours, "model": name})
    split = str(values.get("split", "val"))
    task = _task_by_name(call) if model is None else _task_of(model, call, name)
    data = _checked_data(call, task, split)
    if model is None:  # not before the data are known to be right: it may have to be downloaded
        model, name = load_model(call)
        if _task_of(model, call, name) != task:
            task = _task_of(model, call, name)
            data = _checked_data(call, task, split)
    folder = None if resume else RunFolder(planned_folder({**values, "task": task}), WHERE)
    if resume:  # by name: asked for by True, Ultralytics begins a new run where no epoch was completed
        settings["resume"] = name
    if isinstance(settings.get("augmentations"), str):
        settings["augmentations"] = named(settings["augmentations"])
    if call.switches:  # set again, as Ultralytics has switched some of them for its own ends
        model.add_callback("on_train_start", lambda trainer: set_switches(call.switches))
    return Ready(model=model, task=task, arguments={"data": data, **ours, **settings}, folder=folder)


def _train(ready: Ready, inject: str | None = None) -> Path:
    """Train, and return the run's folder; of a new run that fails before its first batch, the folder is removed."""
    model, folder = ready.model, ready.folder
    made: list[Path] = []
    model.add_callback("on_pretrain_routine_start", lambda trainer: made.append(Path(trainer.save_dir)))
    try:
        trainer_class = ready.trainer
        model.train(
            trainer=faulty(trainer_class, inject, LOGGER.warning) if inject is not None else trainer_class,
            **ready.arguments,
        )
    except BaseException as error:
        trainer: Any = model.trainer
        if trainer is not None:  # with several GPUs the callback is called in the workers only
            made.append(Path(trainer.save_dir))
        if folder is not None and made:
            folder.remove_unused(made[-1])
        if isinstance(error, subprocess.CalledProcessError):  # the workers of a multi-GPU run have said why
            raise YoloStableError(f"A worker of the multi-GPU run ended with exit code {error.returncode}.") from error
        raise
    trainer = model.trainer
    return Path(trainer.save_dir)


def _import_layers(call: TrainCall, device: Any) -> None:
    """Make the user's own layers known, in this process."""
    devices = devices_of(device)
    if call.imports and len(devices) > 1:
        raise InvalidCallError(
            f"{WHERE}: --import makes layers known in one process only, not in the workers of {len(devices)} devices. Train"
            f" on one device: device={devices[0]}."
        )
    make_known(call.imports, f"{WHERE}: --import")


def _task_by_name(call: TrainCall) -> str:
    """Return the task that was asked for, or that the name of a model not yet loaded tells, as in yolo11n-seg.pt."""
    if "task" in call.settings or call.model is None:
        return call.task
    stem = Path(call.model).stem.lower()
    return next((task for task, suffix in SUFFIX_OF_TASK.items() if suffix and suffix in stem), call.task)


def _require_resumable(model: Any, name: str | None, call: TrainCall) -> None:
    """Refuse to resume what was never begun or has been finished; Ultralytics would begin a new run instead."""
    checkpoint = {} if model is None else model.ckpt
    if checkpoint.get("optimizer") is None:  # the epoch says nothing: -1 also in the middle of the first one
        names = Names(data=call.data, model=None if model is None else name, own=call.imports, own_files=call.imports)
        begin = filled(f"\nTo begin a new run from it:\n{AGAIN}", "", names)
        raise InvalidCallError(
            f"{WHERE}: nothing to resume: {name or 'the default model'} is not the checkpoint of an interrupted run."
            f" Give model=RUN/weights/last.pt of such a run, or leave resume out.{begin}"
        )


def _task_of(model: Any, call: TrainCall, name: str | None) -> str:
    """Return the task of a loaded model, which has to be the one that was asked for, if one was."""
    if model.task not in SUFFIX_OF_TASK:
        raise InvalidCallError(
            f"{WHERE}: model={name} is a model for {model.task!r}, which the guard does not know:"
            f" {', '.join(SUFFIX_OF_TASK)}."
        )
    if "task" in call.settings and model.task != call.task:
        raise InvalidCallError(f"{WHERE}: task={call.task}, but model={name} is a model for {model.task!r}.")
    return model.task


def _checked_data(call: TrainCall, task: str, split: str) -> str:
    """Return the path of the data set, which has images for ``task``."""
    data = call.resolve_data(task)
    check_data(data, task, split)
    return data


def load_model(call: TrainCall) -> tuple[Any, str]:
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


def _open(name: str, key: str = "model") -> Any:
    if not name or Path(name).is_dir():
        raise InvalidCallError(f"{WHERE}: {key}={name} is {'a folder' if name else 'empty'}. Give a checkpoint (.pt).")
    try:
        model = RTDETR(name) if "rtdetr" in Path(name).stem.lower() else YOLO(name)
    except Exception as error:
        # What looks a layer up by its name, and what reads a checkpoint in which one is.
        known = not isinstance(error, (KeyError, AttributeError, ModuleNotFoundError))
        what = f"Ultralytics has no layer {error}" if isinstance(error, KeyError) else one_line(error).rstrip(".")
        own = "" if known else ". If it is a layer of your own: --import FILE.py names the file that defines it"
        raise InvalidCallError(f"{WHERE}: {key}={name} cannot be used: {what}{own}.") from error
    if type(model) not in {RTDETR, YOLO} or not isinstance(model.model, nn.Module):
        kind = "an exported model" if type(model) in {RTDETR, YOLO} else f"a {type(model).__name__} model"
        raise InvalidCallError(f"{WHERE}: {key}={name} is {kind}, which the guarded trainers cannot train.")
    if key != "model" and not model.ckpt:
        raise InvalidCallError(f"{WHERE}: {key}={name} holds no weights. Give a checkpoint (.pt).")
    return model
