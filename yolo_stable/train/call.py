"""Call of ``yolo-stable train``: its words, parsed and checked as far as that needs no torch."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..augment import NAMED
from ..data.builtin import is_builtin, make
from ..errors import InvalidCallError, nearest
from ..presets.commented_yaml import CommentedYaml
from ..presets.presets import NONE, values_of
from ..presets.ultralytics_settings import check_setting, parse_value

SUFFIX_OF_TASK = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
"""Tasks that the guard can train, with the suffix of their model files."""
WHERE = "train"
"""What the messages of this verb start with."""
VALIDATIONS = ("quick", "heal")
"""Values of ``validate=``: check the device before training; also train under a setting that heals it."""


@dataclass(frozen=True, kw_only=True)
class TrainCall:
    """A call of ``yolo-stable train``, parsed; :meth:`parse` makes one."""

    data: str
    """Path or built-in name of the data set."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Ultralytics' arguments, with those of a ``cfg`` file, without ``data``, ``model`` and ``cfg``."""
    guard: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the guard."""
    model: str | None = None
    """As given; None: the task chooses."""
    preset: str | None = None
    """As given; None: Ultralytics' own settings."""
    validate: str | None = None
    """One of :data:`VALIDATIONS`, or None."""
    imports: tuple[str, ...] = ()
    """The user's modules and files that define layers."""
    switches: Mapping[str, Any] = field(default_factory=dict)
    """Attributes of ``torch.backends`` to set before training: what heals the device."""

    @property
    def task(self) -> str:
        """The task that the call names; without one, the model decides."""
        return str(self.settings.get("task", "detect"))

    @classmethod
    def parse(
        cls, data: str, words: Sequence[str], preset: str | None = None, imports: Sequence[str] | None = None
    ) -> TrainCall:
        """Parse and check what can be checked without torch.

        Args:
            data: The word after ``train``; ``data=PATH`` may also come after other ``key=value``.
            words: ``key=value`` and ``guard.key=value``. ``cfg=FILE`` names a YAML file with more, which the words override;
                it may be the ``args.yaml`` of an earlier run.
            preset: Name or path of a preset; ``"auto"``: the model chooses one; ``"none"``: none, whatever the file says;
                None: that of the ``cfg`` file, or none.
            imports: Of ``--import``.

        Raises:
            InvalidCallError: A word is not ``key=value``, a key is unknown, a value has the wrong type, the data set is named
                twice or not at all, the model is a folder, the preset or the ``cfg`` file cannot be used.

        Examples:
            >>> call = TrainCall.parse("data.yaml", ["lr0=1e-3", "guard.max_norm=none", "model=yolo11n.yaml"])
            >>> call.settings, call.guard, call.model
            ({'lr0': 0.001}, {'max_norm': None}, 'yolo11n.yaml')
        """
        settings: dict[str, Any] = {}
        guard: dict[str, Any] = {}
        places: list[str] = []
        validate: str | None = None
        if re.match(r"[\w.]+=", data) and not Path(data).exists():
            words = [data, *words]
        else:
            places.append(data)
        for word in words:
            key, equals, text = word.partition("=")
            key = key.strip()
            if not equals or not key:
                raise InvalidCallError(
                    f"{WHERE}: {word!r} is not understood. Write settings as key=value, such as epochs=50 or"
                    " guard.max_norm=5.0; options start with --, see --help."
                )
            if key.startswith("guard."):
                guard[key.removeprefix("guard.")] = parse_value(text)
                continue
            if key == "data":
                places.append(text.strip())
                continue
            if key == "augmentations" and text.strip() not in NAMED:
                raise InvalidCallError(
                    f"{WHERE}: augmentations={text.strip()} is not among {', '.join(NAMED)}."
                    " Pass a list of your own in Python: YOLO(...).train(trainer=StableDetectionTrainer, augmentations=[...])."
                )
            value = parse_value(text, key)
            if key == "validate":
                validate = _validation(value)
                continue
            check_setting(key, value, WHERE)
            settings[key] = value
        file = _read_cfg(settings.pop("cfg", None))
        settings, guard = {**file.settings, **settings}, {**file.guard, **guard}
        preset = file.preset if preset is None else preset
        values_of(preset)
        in_file = settings.pop("data", None)
        if not places and in_file is not None:
            places.append(in_file)
        if len(places) != 1 or not places[0]:
            given = f"is named twice: {' and '.join(map(repr, places))}" if len(places) > 1 else "is missing"
            raise InvalidCallError(f"{WHERE}: the data set {given}. Name one, such as 'data.yaml' or 'digits'.")
        if not isinstance(places[0], str):
            raise InvalidCallError(
                f"{WHERE}: the data set is {places[0]!r}. Name one, such as 'data.yaml' or 'digits'."
            )
        call = cls(
            data=places[0],
            settings=settings,
            guard=guard,
            model=_model(settings),
            preset=None if preset == NONE else preset,
            validate=validate,
            imports=tuple(imports or ()),
        )
        if call.task not in SUFFIX_OF_TASK:
            raise InvalidCallError(
                f"{WHERE}: task={call.task} is not among the tasks that the guard supports: {', '.join(SUFFIX_OF_TASK)}."
                f"{nearest(call.task, SUFFIX_OF_TASK)}"
            )
        return call

    def resolve_data(self, task: str | None = None) -> str:
        """Return the path of the data set; a built-in one is made on first use.

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


@dataclass(frozen=True, kw_only=True)
class _CfgFile:
    """What a ``cfg`` file says."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    guard: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None


def _read_cfg(name: Any) -> _CfgFile:
    """Read and check a file with settings; of a run's own ``args.yaml``, leave out where that run wrote."""
    if name in (None, ""):
        return _CfgFile()
    try:
        entries = CommentedYaml.read(Path(str(name)).expanduser()).entries
    except InvalidCallError as error:
        raise InvalidCallError(f"{WHERE}: cfg={name} cannot be used: {error}") from error
    settings: dict[str, Any] = {}
    ours: dict[str, Any] = {"guard": {}, "preset": None}
    for entry in entries:
        where = f"{WHERE}: cfg={name}, line {entry.line}"
        if entry.key not in ours:
            check_setting(entry.key, entry.value, where)
            settings[entry.key] = entry.value
            continue
        ours[entry.key] = entry.value
        kind, text = (
            (Mapping, "a mapping of settings") if entry.key == "guard" else (str, "the name or path of a preset")
        )
        if not isinstance(entry.value, (kind, type(None))):
            raise InvalidCallError(f"{where}: {entry.key} is {entry.value!r}. It must be {text}, or none.")
    if settings.pop("save_dir", None):  # the args.yaml of a run: the new run has its own folder and begins anew
        settings.pop("exist_ok", None)
        settings.pop("resume", None)
    settings.pop("injected", None)  # a record of that run
    settings.pop("cfg", None)  # the file that this one was made with; its settings are in here
    return _CfgFile(settings=settings, guard=ours["guard"] or {}, preset=ours["preset"])


def _model(settings: dict[str, Any]) -> str | None:
    """Take the model out of the settings."""
    model = settings.pop("model", None)
    if model is None:
        return None
    what = "is empty" if not model else "is a folder" if Path(str(model)).is_dir() else ""
    if what:
        raise InvalidCallError(
            f"{WHERE}: model={model} {what}. Give a checkpoint (.pt) or a YAML, or leave model out for Ultralytics' default."
        )
    return str(model)


def _validation(value: Any) -> str | None:
    """Return what ``validate=`` asks for; none and False ask for nothing."""
    if value in (None, False):
        return None
    if value not in VALIDATIONS:
        raise InvalidCallError(
            f"{WHERE}: validate={value} is not allowed. It must be {' or '.join(VALIDATIONS)}."
            f"{nearest(str(value), VALIDATIONS)}"
        )
    return str(value)


@contextlib.contextmanager
def said_by(verb: str) -> Iterator[None]:
    """Let another verb, which takes the same words, report the objections of ``train``."""
    try:
        yield
    except InvalidCallError as error:
        raise InvalidCallError(f"{verb}: {str(error).removeprefix(f'{WHERE}: ')}") from error
