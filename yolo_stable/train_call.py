"""From the words of ``yolo-stable train`` to a checked call; nothing is written before everything has been checked."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .builtin_data import is_builtin, make
from .errors import InvalidCallError, nearest
from .presets import load_preset
from .settings import check_setting, parse_value

SUFFIX_OF_TASK = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
"""Tasks that can be trained, with the suffix of their model files."""
WHERE = "train"
"""What the messages of this verb start with."""
OPTIMIZERS = ("SGD", "MuSGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "auto")
"""What Ultralytics builds, in any case of letters; it says so only when the model and the data have been loaded."""


@dataclass(frozen=True, kw_only=True)
class TrainCall:
    """A call of ``yolo-stable train``, parsed; :meth:`parse` makes one."""

    data: str
    """Path or built-in name of the data set."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Ultralytics' arguments, without ``data`` and ``model``."""
    guard: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the guard."""
    model: str | None = None
    """As given; None: chosen by the task."""
    preset: str | None = None
    """As given; None: chosen by the model."""

    @property
    def task(self) -> str:
        """The task that was asked for; the model decides when it was not."""
        return str(self.settings.get("task", "detect"))

    @classmethod
    def parse(cls, data: str, words: Sequence[str], preset: str | None = None) -> TrainCall:
        """Parse and check what can be checked without torch.

        Args:
            data: The word after ``train``; as ``data=PATH`` it may also stand behind other ``key=value``.
            words: ``key=value`` and ``guard.key=value``.
            preset: Name or path of a preset, or None.

        Raises:
            InvalidCallError: A word is not ``key=value``, a key is unknown, a value has the wrong type, the data set is named
                twice or not at all, the preset does not exist.

        Examples:
            >>> call = TrainCall.parse("data.yaml", ["lr0=1e-3", "guard.max_norm=none", "model=yolo11n.yaml"])
            >>> call.settings, call.guard, call.model
            ({'lr0': 0.001}, {'max_norm': None}, 'yolo11n.yaml')
        """
        settings: dict[str, Any] = {}
        guard: dict[str, Any] = {}
        places: list[str] = []
        if re.match(r"[\w.]+=", data) and not Path(data).exists():
            words = [data, *words]
        else:
            places.append(data)
        for word in words:
            key, equals, text = word.partition("=")
            key = key.strip()
            if not equals or not key:
                raise InvalidCallError(
                    f"{WHERE}: {word!r} is not understood. Settings are written key=value, such as epochs=50"
                    " or guard.max_norm=5.0; options start with -- and are in --help."
                )
            if key.startswith("guard."):
                guard[key.removeprefix("guard.")] = parse_value(text)
                continue
            if key == "data":
                places.append(text.strip())
                continue
            value = parse_value(text, key)
            check_setting(key, value, WHERE)
            settings[key] = value
        if preset is not None:
            load_preset(preset)
        if len(places) != 1 or not places[0]:
            given = f"is named twice: {' and '.join(map(repr, places))}" if len(places) > 1 else "is missing"
            raise InvalidCallError(f"{WHERE}: the data set {given}. Name one, such as 'data.yaml' or 'digits'.")
        model = settings.pop("model", None)
        call = cls(
            data=places[0], settings=settings, guard=guard, model=None if model is None else str(model), preset=preset
        )
        if call.task not in SUFFIX_OF_TASK:
            raise InvalidCallError(
                f"{WHERE}: task={call.task} is not among the tasks that the guard knows: {', '.join(SUFFIX_OF_TASK)}."
                f"{nearest(call.task, SUFFIX_OF_TASK)}"
            )
        return call

    def resolve_data(self, task: str | None = None) -> str:
        """Return the path of the data set, making a built-in one on first use.

        Args:
            task: The task that the data set is made for; None: :attr:`task`.

        Raises:
            InvalidCallError: It does not exist.
        """
        if is_builtin(self.data):
            return str(make(self.data, task=task or self.task))
        if "://" in self.data or Path(self.data).exists():
            return self.data
        looks_like_a_path = os.sep in self.data or self.data.endswith((".yaml", ".yml"))
        hint = "" if looks_like_a_path else nearest(self.data, ("digits", "shapes"))
        raise InvalidCallError(
            f"{WHERE}: there is no data set {self.data!r} (seen from {Path.cwd()}).{hint}"
            " Give the path of a data.yaml, or 'digits' or 'shapes', which are made on first use."
        )


def one_line(error: BaseException) -> str:
    """Return an exception's text as one line without decoration."""
    text = re.sub(r"\x1b\[[0-9;]*m|\s*(❌|⚠️)", "", str(error))
    return " ".join(text.split()) or type(error).__name__


def check_arguments(settings: Mapping[str, Any]) -> None:
    """Let Ultralytics check ranges and the device, and say its objection in one line.

    Args:
        settings: Arguments as they will be given to the trainer, the preset's included; ``cfg``, a file with more of them,
            is read.

    Raises:
        InvalidCallError: A value is out of its range, the device is not there, or the file cannot be used.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import YAML
    from ultralytics.utils.checks import check_yaml

    if settings.get("cfg"):
        try:
            settings = {**YAML.load(str(check_yaml(settings["cfg"]))), **settings}
        except Exception as error:
            raise InvalidCallError(f"{WHERE}: cfg={settings['cfg']} cannot be used: {one_line(error)}") from error
    try:
        get_cfg(overrides=dict(settings))
    except (TypeError, ValueError, SyntaxError) as error:
        raise InvalidCallError(f"{WHERE}: {one_line(error)}") from error
    optimizer = str(settings.get("optimizer", "auto"))
    names = {name.lower(): name for name in OPTIMIZERS}
    if optimizer.lower() not in names:
        hint = nearest(optimizer, OPTIMIZERS) or nearest(optimizer.lower(), names)
        raise InvalidCallError(f"{WHERE}: optimizer={optimizer} is not among {', '.join(OPTIMIZERS)}.{hint}")
    _check_device(settings.get("device"))


def _check_device(device: Any) -> None:
    import torch
    from ultralytics.utils.torch_utils import parse_device, select_device

    try:
        wish = parse_device("" if device is None else device)
        found = select_device(wish, verbose=False)
    except Exception as error:
        raise _no_device(device) from error
    # What select_device lets pass: an idle GPU (-1) where there is none, a Mac's GPU where there is none (it takes the
    # processor for both), and devices that can run a model but not train it.
    no_idle_gpu = not wish and device not in (None, "") and not torch.cuda.is_available()
    no_mps = wish.startswith("mps") and not torch.backends.mps.is_available()
    if no_idle_gpu or no_mps or not isinstance(found, torch.device):
        raise _no_device(device)


def _no_device(device: Any) -> InvalidCallError:
    import torch

    found = [f"{torch.cuda.device_count()} CUDA or ROCm device(s)"]
    if torch.backends.mps.is_available():
        found.append("mps")
    return InvalidCallError(
        f"{WHERE}: device={device} is not there: torch {torch.__version__} sees {' and '.join(found)}."
        " Give another one, or device=cpu."
    )


def check_data(data: str, task: str, split: str = "val") -> None:
    """Let Ultralytics read the data set's description, and make sure that there are images.

    Args:
        data: Path or address of the data set.
        task: Decides what a data set looks like: folders of classes, or images with labels.
        split: What the run validates on.

    Raises:
        InvalidCallError: Missing, not YAML, incomplete, or without images.
    """
    from ultralytics.data.utils import IMG_FORMATS, check_cls_dataset, check_det_dataset

    if data.startswith("ul://") or data.endswith(".ndjson"):
        return  # a list of addresses: Ultralytics downloads the images when training is set up
    try:
        found = check_cls_dataset(data, split) if task == "classify" else check_det_dataset(data, split=split)
    except Exception as error:
        raise InvalidCallError(f"{WHERE}: data set {data}: {one_line(error)}") from error
    for part in ("train", split):
        places = found.get(part)
        places = [] if places is None else places if isinstance(places, list) else [places]
        if not any(_has_image(Path(place), IMG_FORMATS) for place in places):
            looked = ", ".join(str(place) for place in places) or "no folder is given"
            mend = "" if task == "classify" else f", or mend the '{part}:' line"
            raise InvalidCallError(
                f"{WHERE}: data set {data}: no images for '{part}' (looked at: {looked}). Put images there{mend}."
            )


def _has_image(place: Path, formats: Collection[str]) -> bool:
    """Look where Ultralytics does: below a folder, through links as well, or at the files that a text file lists."""
    if place.is_dir():
        files = glob.iglob(os.path.join(glob.escape(str(place)), "**", "*.*"), recursive=True)
        return any(file.rpartition(".")[-1].lower() in formats for file in files)
    if not place.is_file():
        return False
    lines = place.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    paths = (place.parent / line if line.startswith("./") else Path(line) for line in map(str.strip, lines))
    return any(path.suffix[1:].lower() in formats and path.is_file() for path in paths)
