"""Request of a training: a parsed call with its model, data and folder resolved, ready to train."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ultralytics import RTDETR
from ultralytics.utils import LOGGER

from .._shared.shell_text import AGAIN, beneath
from .._shared.text import listed
from ..augment import named
from ..autopsy.advice import Names
from ..autopsy.advice import named as filled
from ..checkpoints.reader import load_good
from ..errors import InvalidCallError
from ..incidents.own_layers import make_known
from ..presets.guard_settings import GuardSettings
from ..presets.presets import values_of
from ..presets.run_plan import separate
from ..trainer.trainers import TRAINERS, GuardedTrainerMixin
from .call import WHERE, TrainCall
from .checks import check_arguments, check_data, planned_folder
from .device_gate import devices_of, set_switches, warn_of_device
from .model import load_model, open_model, task_by_name, task_of
from .run_folder import RunFolder
from .words import is_address, is_shipped


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A call that was checked completely."""

    model: Any
    """Ultralytics' ``YOLO`` or ``RTDETR``, loaded."""
    task: str
    arguments: dict[str, Any]
    """For its ``train``, with the guard's settings and the preset."""
    folder: RunFolder | None
    """Of a new run; None: the run is resumed."""
    stock: bool = False
    """Train without the guard."""

    @property
    def trainer(self) -> type[GuardedTrainerMixin] | None:
        """The trainer's class; None: Ultralytics' own of the task."""
        if self.stock:
            return None
        return TRAINERS["rtdetr" if isinstance(self.model, RTDETR) else self.task]


def resolve(call: TrainCall) -> TrainRequest:
    """Check a parsed call with the help of Ultralytics, and load its model; nothing is written.

    Raises:
        InvalidCallError: Something in the call is wrong.
        YoloStableError: The checkpoint to resume is damaged.
    """
    settings = dict(call.settings)
    values = {**values_of(call.preset), **settings}
    _check_values(call, values)
    resume = settings.get("resume")
    if not resume:
        RunFolder(planned_folder({**values, "task": task_by_name(call)}), WHERE)
    for key in ("pretrained", "distill_model"):
        if isinstance(values.get(key), str):
            open_model(values[key], key=key)
    name = resume if isinstance(resume, str) else call.model
    model = _on_disk(name, resume=bool(resume))
    ours = {"guard": dict(call.guard) or None, "preset": call.preset}
    if resume:
        _require_resumable(model, name, call)
        if call.data is None:
            call = replace(call, data=_data_of_the_run(model, str(name)))
        separate({**settings, **ours, "model": name})
        settings["resume"] = name  # with True, Ultralytics begins a new run where no epoch was completed
    split = str(values.get("split", "val"))
    task = task_by_name(call) if model is None else task_of(model, call, name)
    data = _resolve_data(call, task, split)
    if model is None:  # only now that the data are right: it may have to be downloaded
        model, name = load_model(call)
        if task_of(model, call, name) != task:
            task = task_of(model, call, name)
            data = _resolve_data(call, task, split)
    folder = None if resume else RunFolder(planned_folder({**values, "task": task}), WHERE)
    if isinstance(settings.get("augmentations"), str):
        settings["augmentations"] = named(settings["augmentations"])
    if call.switches:  # again, since Ultralytics has changed some of them meanwhile
        model.add_callback("on_train_start", lambda trainer: set_switches(call.switches))
    arguments = {"data": data, **ours, **settings}
    if call.stock:
        arguments = separate({**arguments, "model": name})[1]
        del arguments["model"]
    return TrainRequest(model=model, task=task, arguments=arguments, folder=folder, stock=call.stock)


def _check_values(call: TrainCall, values: dict[str, Any]) -> None:
    """Check settings and device, and import the user's own layers."""
    GuardSettings.of(call.guard)
    check_arguments(values)
    set_switches(call.switches)
    devices = devices_of(values.get("device"))
    if call.imports and len(devices) > 1:
        raise InvalidCallError(
            f"{WHERE}: --import reaches one process only, not the workers of {len(devices)} devices. Train on one device:"
            f" device={devices[0]}."
        )
    make_known(call.imports, f"{WHERE}: --import")
    if call.validate is None:
        warn_of_device(values.get("device"), lambda line: LOGGER.warning(beneath(line)))


def _on_disk(name: str | None, *, resume: bool) -> Any:
    """Return the model of a file, whose task decides what the data must be; None where there is no file yet."""
    if name is None or not Path(name).is_file():
        return None
    if resume and name.lower().endswith(".pt"):
        load_good(Path(name).absolute())  # its error names an older one that is good
    return open_model(name)


def _require_resumable(model: Any, name: str | None, call: TrainCall) -> None:
    """Refuse to resume a run that never began or has finished; Ultralytics would begin a new one instead."""
    checkpoint = {} if model is None else model.ckpt or {}
    if checkpoint.get("optimizer") is not None:  # the epoch does not tell: it is -1 in the middle of the first one, too
        return
    names = Names(data=call.data, model=None if model is None else name, own=call.imports, own_files=call.imports)
    begin = filled(f"\nTo begin a new run from it:\n{AGAIN}", "", names)
    raise InvalidCallError(f"{WHERE}: nothing to resume: {_why_not(model, name)}{begin}")


def _why_not(model: Any, name: str | None) -> str:
    """Say what a file is that is no checkpoint of an interrupted run."""
    if name is None:
        return "no checkpoint is named. Give model=RUN/weights/last.pt of an interrupted run."
    path = Path(name)
    if model is None:
        beside = sorted(file.name for file in path.parent.glob("*.pt"))
        what = f"has {listed(beside)}" if beside else "has no checkpoint" if path.parent.is_dir() else "does not exist"
        return f"there is no checkpoint {name} (seen from {Path.cwd()}); {path.parent.absolute()} {what}."
    if not model.ckpt:
        return f"{name} is the description of a network, not a checkpoint. Give model=RUN/weights/last.pt."
    if path.parent.name == "weights" and (path.parent.parent / "args.yaml").is_file():
        return f"{name} is of a run that is finished."
    return f"{name} holds weights alone, not the state of an interrupted run. Give model=RUN/weights/last.pt of one."


def _data_of_the_run(model: Any, name: str) -> str:
    """Return the data set that a run to resume was trained on."""
    data = (model.ckpt.get("train_args") or {}).get("data")
    if not isinstance(data, str):
        raise InvalidCallError(f"{WHERE}: {name} does not say on what data it was trained. Name the data set.")
    if not (is_address(data) or Path(data).exists() or is_shipped("datasets", data)):
        raise InvalidCallError(
            f"{WHERE}: {name} was trained on {data}, which is not there (seen from {Path.cwd()}). Name the data set, or"
            " resume it in the folder where it was begun."
        )
    return data


def _resolve_data(call: TrainCall, task: str, split: str) -> str:
    """Return the path of the data set, which has images for the task."""
    data = call.resolve_data(task)
    check_data(data, task, split)
    return data
