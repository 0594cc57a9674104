"""The presets in ``hyp/``: plain Ultralytics settings, each with the reason for its value on its line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._shared.resources import resource_dir
from ..errors import InvalidCallError, nearest
from .commented_yaml import CommentedYaml
from .ultralytics_settings import check_setting, default_hyp

AUTO = "auto"
"""In the place of a preset's name: let the model decide."""
OF_A_CALL = ("model", "data", "task", "mode", "resume", "pretrained", "cfg", "save_dir")
"""Settings that a preset must not have, as a run takes them from its call: there they would count for nothing."""
_DEFAULTS = ("default", "ultralytics")  # the names of a side of a comparison that has no file


@dataclass(frozen=True)
class PresetSetting:
    """One line of a preset.

    Attributes:
        key: The name that Ultralytics gives it.
        value: The preset's value.
        default: Ultralytics' value; None also where Ultralytics has none.
        reason: Why the preset sets it; empty where a user's own file gives no reason.
    """

    key: str
    value: Any
    default: Any
    reason: str


@dataclass(frozen=True)
class Preset:
    """A file of settings for training.

    Attributes:
        name: The file's name without suffix.
        path: The file.
        purpose: The first line of the comment at its top: what it is for. Empty without such a comment.
        settings: Its settings in the order of the file.
        notes: The other lines of that comment: when to use it and when not.
    """

    name: str
    path: Path
    purpose: str
    settings: tuple[PresetSetting, ...]
    notes: tuple[str, ...] = ()

    @property
    def values(self) -> dict[str, Any]:
        """The settings as keyword arguments for ``YOLO.train``."""
        return {setting.key: setting.value for setting in self.settings}


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets that come with this package, in alphabetical order.

    Examples:
        >>> preset_names()
        ('adamw', 'cautious', 'finetune', 'guarded', 'recovery', 'stable')
    """
    return tuple(sorted(path.stem for path in resource_dir("hyp").glob("*.yaml")))


def load_preset(name_or_path: str | os.PathLike[str]) -> Preset:
    """Read and check a preset.

    Args:
        name_or_path: One of :func:`preset_names`, or the path of a YAML file of your own. A ``Path``, and a text that
            ends in ``.yaml`` or ``.yml`` or has a folder in it, is a path.

    Returns:
        The preset. In a file of your own, ``optimizer: auto`` is allowed; Ultralytics then ignores ``lr0``,
        ``momentum`` and ``warmup_bias_lr``.

    Raises:
        InvalidCallError: There is no such preset or file, the file is not a YAML mapping, or one of its lines is not a
            setting of Ultralytics with a finite value of the right type; the message has file and line.

    Examples:
        >>> load_preset("guarded").values
        {'optimizer': 'SGD', 'lr0': 0.01, 'momentum': 0.937}
    """
    path = _locate(name_or_path)
    file = CommentedYaml.read(path)
    defaults = default_hyp()
    settings = []
    for entry in file.entries:
        check_setting(entry.key, entry.value, f"{path}:{entry.line}")
        settings.append(PresetSetting(entry.key, entry.value, defaults.get(entry.key), entry.comment))
    purpose, *notes = file.head or ("",)
    return Preset(path.stem, path, purpose, tuple(settings), tuple(notes))


def load_hyp(name_or_path: str | os.PathLike[str], **overrides: Any) -> dict[str, Any]:
    """Return a preset's settings, ready for ``YOLO.train``.

    Use it as ``YOLO("yolo11n.pt").train(data="data.yaml", **load_hyp("stable", epochs=50))``.

    Args:
        name_or_path: One of :func:`preset_names`, or the path of a YAML file of your own.
        **overrides: Settings of Ultralytics that are added to the preset's or replace them.

    Returns:
        A new dictionary.

    Raises:
        InvalidCallError: As :func:`load_preset`; also for an override that is not a setting of Ultralytics with a
            finite value of the right type.

    Examples:
        >>> load_hyp("guarded", lr0=0.005, epochs=50)
        {'optimizer': 'SGD', 'lr0': 0.005, 'momentum': 0.937, 'epochs': 50}
    """
    values = load_preset(name_or_path).values
    for key, value in overrides.items():
        check_setting(key, value, f"load_hyp({os.fspath(name_or_path)!r})")
    return {**values, **overrides}


def hyperparameters(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a preset's settings for a run that is given them by the preset's name.

    Args:
        name_or_path: As for :func:`load_preset`.

    Returns:
        A new dictionary.

    Raises:
        InvalidCallError: As :func:`load_preset`; also for a setting that is among :data:`OF_A_CALL`.
    """
    preset = load_preset(name_or_path)
    wrong = [setting.key for setting in preset.settings if setting.key in OF_A_CALL]
    if wrong:
        raise InvalidCallError(
            f"{preset.path}: {', '.join(wrong)} cannot be in a preset, which holds hyperparameters only."
            f" Give {'it' if len(wrong) == 1 else 'them'} as key=value, or use the file as cfg={preset.path}."
        )
    return preset.values


def diff_presets(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> list[tuple[str, Any, Any]]:
    """Compare what two presets mean for training.

    Args:
        a: A preset, the path of a file, or ``"default"`` (or ``"ultralytics"``) for Ultralytics' own values.
        b: The same.

    Returns:
        ``(key, value in a, value in b)`` for each setting that differs, in Ultralytics' order. A setting that a side
        leaves out has Ultralytics' default there.

    Raises:
        InvalidCallError: As :func:`load_preset`.

    Examples:
        >>> diff_presets("guarded", "default")
        [('optimizer', 'SGD', 'auto')]
    """
    defaults = default_hyp()
    side_a, side_b = ({**defaults, **_side(side)} for side in (a, b))
    keys = list(dict.fromkeys([*side_a, *side_b]))
    rows = [(key, side_a.get(key), side_b.get(key)) for key in keys]
    return [row for row in rows if row[1] != row[2]]


def _side(side: str | os.PathLike[str]) -> Mapping[str, Any]:
    return {} if side in _DEFAULTS else load_preset(side).values


def _locate(name_or_path: str | os.PathLike[str]) -> Path:
    """Find the file; a preset's name is never taken for a path, so that a folder ``stable`` cannot hide it."""
    text, names = os.fspath(name_or_path), preset_names()
    known = f"The presets are {', '.join(names)}"
    if isinstance(name_or_path, str) and name_or_path in names:
        return resource_dir("hyp") / f"{name_or_path}.yaml"
    path = Path(text).expanduser()
    named = isinstance(name_or_path, str) and path.name == text and path.suffix.lower() not in (".yaml", ".yml")
    if named:
        raise InvalidCallError(
            f"There is no preset {text!r}.{nearest(text.lower(), names)} {known}; "
            "a file of your own is given by its path, such as my/hyp.yaml."
        )
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        hint = f" The preset of this name is loaded by {path.stem!r}." if path.stem in names else ""
        raise InvalidCallError(f"The settings file {path} {found} (looked in {path.absolute().parent}).{hint} {known}.")
    return path
