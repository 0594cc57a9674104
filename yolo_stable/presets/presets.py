"""Presets in ``hyp/``: plain Ultralytics settings, each with the reason for its value on its line."""

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
"""Instead of a preset's name: let the model decide."""
NONE = "none"
"""Instead of a preset's name: Ultralytics' own settings, as without a preset."""
OF_A_CALL = ("model", "data", "task", "mode", "resume", "pretrained", "cfg", "save_dir")
"""Settings that a preset must not have: a run takes them only from its call."""
_DEFAULTS = ("default", "ultralytics")  # the names of a side of a comparison that has no file


@dataclass(frozen=True)
class PresetSetting:
    """One line of a preset."""

    key: str
    value: Any
    default: Any
    """Ultralytics' value; None also where it has none."""
    reason: str
    """Why the preset sets it; may be empty in a user's own file."""


@dataclass(frozen=True)
class Preset:
    """A file of settings for training."""

    name: str
    """The file's name without suffix."""
    path: Path
    purpose: str
    """The first line of the comment at the top; may be empty."""
    settings: tuple[PresetSetting, ...]
    """In the order of the file."""
    notes: tuple[str, ...] = ()
    """The other lines of that comment: when to use it and when not."""

    @property
    def values(self) -> dict[str, Any]:
        """The settings as keyword arguments for ``YOLO.train``."""
        return {setting.key: setting.value for setting in self.settings}


def preset_names() -> tuple[str, ...]:
    """Return the names of the presets in this package, sorted.

    Examples:
        >>> preset_names()
        ('adamw', 'cautious', 'finetune', 'guarded', 'recovery', 'stable')
    """
    return tuple(sorted(path.stem for path in resource_dir("hyp").glob("*.yaml")))


def load_preset(name_or_path: str | os.PathLike[str]) -> Preset:
    """Read and check a preset.

    Args:
        name_or_path: One of :func:`preset_names`, or the path of your own YAML file: a ``Path``, or a text that ends in
            ``.yaml`` or ``.yml`` or contains a folder.

    Raises:
        InvalidCallError: There is no such preset or file, the file is no YAML mapping, or a line is no setting of Ultralytics
            with a finite value of the right type; with file and line.

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
        name_or_path: As for :func:`load_preset`.
        **overrides: Settings of Ultralytics that add to the preset's or replace them.

    Raises:
        InvalidCallError: As :func:`load_preset`, also for an override.

    Examples:
        >>> load_hyp("guarded", lr0=0.005, epochs=50)
        {'optimizer': 'SGD', 'lr0': 0.005, 'momentum': 0.937, 'epochs': 50}
    """
    values = load_preset(name_or_path).values
    for key, value in overrides.items():
        check_setting(key, value, f"load_hyp({os.fspath(name_or_path)!r})")
    return {**values, **overrides}


def hyperparameters(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return a preset's settings for a run that names the preset.

    Raises:
        InvalidCallError: As :func:`load_preset`; also for a setting among :data:`OF_A_CALL`.
    """
    preset = load_preset(name_or_path)
    wrong = [setting.key for setting in preset.settings if setting.key in OF_A_CALL]
    if wrong:
        raise InvalidCallError(
            f"{preset.path}: {', '.join(wrong)} cannot be in a preset, which holds hyperparameters only."
            f" Give {'it' if len(wrong) == 1 else 'them'} as key=value, or use the file as cfg={preset.path}."
        )
    return preset.values


def values_of(preset: str | None) -> dict[str, Any]:
    """Return the settings of a preset that a call names; none where it names none, or lets the model decide.

    Raises:
        InvalidCallError: As :func:`hyperparameters`.

    Examples:
        >>> values_of(None), values_of("auto"), values_of("guarded")["optimizer"]
        ({}, {}, 'SGD')
    """
    return {} if preset in (None, AUTO, NONE) else hyperparameters(preset)


def diff_presets(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> list[tuple[str, Any, Any]]:
    """Compare what two presets mean for training.

    Args:
        a: A preset, the path of a file, or ``"default"`` (or ``"ultralytics"``) for Ultralytics' own values.
        b: Likewise.

    Returns:
        ``(key, value in a, value in b)`` for each setting that differs, in Ultralytics' order. A setting that one side leaves
        out has Ultralytics' default there.

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
    """Find the file; a preset's name is never a path, so a folder ``stable`` cannot hide it."""
    text, names = os.fspath(name_or_path), preset_names()
    known = f"The presets are {', '.join(names)}"
    if isinstance(name_or_path, str) and name_or_path in names:
        return resource_dir("hyp") / f"{name_or_path}.yaml"
    path = Path(text).expanduser()
    named = isinstance(name_or_path, str) and path.name == text and path.suffix.lower() not in (".yaml", ".yml")
    if named:
        raise InvalidCallError(
            f"There is no preset {text!r}.{nearest(text.lower(), names)} {known}; "
            "name your own file by its path, such as my/hyp.yaml."
        )
    if not path.is_file():
        found = "is not a file" if path.exists() else "does not exist"
        hint = f" The preset is called {path.stem!r}." if path.stem in names else ""
        raise InvalidCallError(f"The settings file {path} {found} (looked in {path.absolute().parent}).{hint} {known}.")
    return path
