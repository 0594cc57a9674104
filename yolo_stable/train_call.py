"""From the words of ``yolo-stable train`` to a checked call; nothing is written before everything has been checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
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
            data: The word after ``train``; ``data=PATH`` is understood as well.
            words: ``key=value`` and ``guard.key=value``.
            preset: Name or path of a preset, or None.

        Raises:
            InvalidCallError: A word is not ``key=value``, a key is unknown, a value has the wrong type, the preset does not
                exist.

        Examples:
            >>> call = TrainCall.parse("data.yaml", ["lr0=1e-3", "guard.max_norm=none", "model=yolo11n.yaml"])
            >>> call.settings, call.guard, call.model
            ({'lr0': 0.001}, {'max_norm': None}, 'yolo11n.yaml')
        """
        settings: dict[str, Any] = {}
        guard: dict[str, Any] = {}
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
            value = parse_value(text, key)
            check_setting(key, value, WHERE)
            settings[key] = value
        if preset is not None:
            load_preset(preset)
        data = str(settings.pop("data", data)).removeprefix("data=")
        model = settings.pop("model", None)
        call = cls(
            data=data, settings=settings, guard=guard, model=None if model is None else str(model), preset=preset
        )
        if call.task not in SUFFIX_OF_TASK:
            raise InvalidCallError(
                f"{WHERE}: task={call.task} is not among the tasks that the guard knows: {', '.join(SUFFIX_OF_TASK)}."
                f"{nearest(call.task, SUFFIX_OF_TASK)}"
            )
        return call

    def resolve_data(self) -> str:
        """Return the path of the data set, making a built-in one on first use.

        Raises:
            InvalidCallError: It does not exist.
        """
        if is_builtin(self.data):
            return str(make(self.data, task=self.task))
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
    text = " ".join(str(error).replace("❌", "").replace("⚠️", "").split())
    return text or type(error).__name__


def check_arguments(settings: Mapping[str, Any]) -> None:
    """Let Ultralytics check ranges and the device, and say its objection in one line.

    Args:
        settings: Arguments as they will be given to the trainer, the preset's included.

    Raises:
        InvalidCallError: A value is out of its range, or the device is not there.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.utils.torch_utils import parse_device, select_device

    try:
        get_cfg(overrides=dict(settings))
    except (TypeError, ValueError, SyntaxError) as error:
        raise InvalidCallError(f"{WHERE}: {one_line(error)}") from error
    optimizer = settings.get("optimizer", "auto")
    if optimizer.lower() not in {name.lower() for name in OPTIMIZERS}:
        raise InvalidCallError(
            f"{WHERE}: optimizer={optimizer} is not among {', '.join(OPTIMIZERS)}.{nearest(optimizer, OPTIMIZERS)}"
        )
    device = settings.get("device")
    try:
        select_device(parse_device("" if device is None else device), verbose=False)
    except Exception as error:
        import torch

        found = [f"{torch.cuda.device_count()} CUDA or ROCm device(s)"]
        if torch.backends.mps.is_available():
            found.append("mps")
        raise InvalidCallError(
            f"{WHERE}: device={device} is not there: torch {torch.__version__} sees {' and '.join(found)}."
            " Give another one, or device=cpu."
        ) from error


def check_data(data: str, task: str) -> None:
    """Let Ultralytics read the data set's description, and make sure that there are images.

    Raises:
        InvalidCallError: Missing, not YAML, incomplete, or without images.
    """
    from ultralytics.data.utils import IMG_FORMATS, check_cls_dataset, check_det_dataset

    try:
        found = check_cls_dataset(data) if task == "classify" else check_det_dataset(data)
    except Exception as error:
        raise InvalidCallError(f"{WHERE}: data set {data}: {one_line(error)}") from error
    for split in ("train", "val"):
        places = found.get(split)
        places = [] if places is None else places if isinstance(places, list) else [places]
        if not any(_has_image(Path(place), IMG_FORMATS) for place in places):
            looked = ", ".join(str(place) for place in places) or "no folder is given"
            raise InvalidCallError(
                f"{WHERE}: data set {data}: no images for '{split}' (looked at: {looked})."
                f" Put images there, or mend the '{split}:' line."
            )


def _has_image(place: Path, formats: Iterable[str]) -> bool:
    if place.is_dir():
        suffixes = {f".{suffix}" for suffix in formats}
        return any(file.suffix.lower() in suffixes for file in place.rglob("*"))
    return place.is_file() and bool(place.read_text(encoding="utf-8", errors="replace").strip())
