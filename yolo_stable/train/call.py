"""Call of ``yolo-stable train``: its words, parsed and checked as far as that needs no torch."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..augment import NAMED
from ..data.builtin import BUILTIN, is_builtin, make
from ..errors import InvalidCallError, nearest
from ..presets.commented_yaml import CommentedYaml
from ..presets.presets import NONE, values_of
from ..presets.ultralytics_settings import check_setting, parse_value
from .words import WHERE as WHERE
from .words import canonical, is_address, is_shipped

SUFFIX_OF_TASK = {
    "detect": "",
    "segment": "-seg",
    "semantic": "-sem",
    "depth": "-depth",
    "pose": "-pose",
    "obb": "-obb",
    "classify": "-cls",
}
"""Tasks that the guard can train, with the suffix of their model files."""
VALIDATIONS = ("quick", "heal")
"""Values of ``validate=``: check the device before training; also train under a setting that heals it."""


@dataclass(frozen=True, kw_only=True)
class TrainCall:
    """A call of ``yolo-stable train``, parsed; :meth:`parse` makes one."""

    data: str | None
    """Path, name or address of the data set; None: that of the run to resume."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Ultralytics' arguments, with those of a ``cfg`` file, without ``data``, ``model`` and ``cfg``."""
    guard: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the guard."""
    stock: bool = False
    """Train without the guard."""
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
            data: The word after ``train``: the data set, or any other.
            words: The others, as :func:`canonical` understands them; beside Ultralytics' keys ``guard.NAME``, ``guard=False`` and
                ``preset``. ``cfg=FILE`` names a YAML file with more, which the words override; it may be the
                ``args.yaml`` of an earlier run.
            preset: Name or path of a preset; ``"auto"``: the model chooses one; ``"none"``: none, whatever the file says;
                None: that of the ``cfg`` file, or none.
            imports: Of ``--import``.

        Raises:
            InvalidCallError: A word is not understood, a key is unknown, a value has the wrong type, the data set is named twice
                or, for a new run, not at all, the model is a folder, the preset or the ``cfg`` file cannot be used.

        Examples:
            >>> call = TrainCall.parse("data.yaml", ["lr0=1e-3", "guard.max_norm=none", "model=yolo11n.yaml"])
            >>> call.settings, call.guard, call.model
            ({'lr0': 0.001}, {'max_norm': None}, 'yolo11n.yaml')
        """
        settings: dict[str, Any] = {}
        guard: dict[str, Any] = {}
        places: list[str] = []
        validate: str | None = None
        guarded: Any = None
        for word in canonical([data, *words]):
            key, _, text = word.partition("=")
            key = key.strip()
            if key.startswith("guard."):
                guard[key.removeprefix("guard.")] = parse_value(text)
                continue
            if key == "guard":
                guarded = switch(parse_value(text), WHERE)
                continue
            if key == "preset":
                preset = text.strip() if preset is None else preset
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
        if guarded is False and guard:
            raise InvalidCallError(
                f"{WHERE}: guard=False trains without the guard, but guard.{next(iter(guard))} is set. Leave one of them out."
            )
        settings, guard = {**file.settings, **settings}, {**file.guard, **guard}
        preset = file.preset if preset is None else preset
        values_of(preset)
        in_file = settings.pop("data", None)
        if not places and in_file is not None:
            places.append(in_file)
        model = _model(settings)
        call = cls(
            data=_data(places, model, resumes=bool(settings.get("resume"))),
            settings=settings,
            guard={} if guarded is False else guard,
            stock=guarded is False,
            model=model,
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

    @property
    def data_is_a_path(self) -> bool:
        """Whether the data set is named by a path, there or not."""
        return self.data is not None and (os.sep in self.data or self.data.endswith((".yaml", ".yml")))

    def resolve_data(self, task: str | None = None) -> str:
        """Return the path, the address or Ultralytics' name of the data set; a built-in one is made on first use.

        Raises:
            InvalidCallError: It does not exist, and Ultralytics has none of this name.
        """
        data, task = self.data or "", task or self.task
        if is_builtin(data):
            return str(make(data, task=task))
        if is_address(data) or Path(data).exists() or is_shipped("datasets", data):
            return data
        if task == "classify" and not self.data_is_a_path and not nearest(data, BUILTIN):
            return data  # Ultralytics has some that no file lists, such as imagenet10
        hint = "" if self.data_is_a_path else nearest(data, BUILTIN)
        raise InvalidCallError(
            f"{WHERE}: there is no data set {data!r} (seen from {Path.cwd()}).{hint} Give the path of a data.yaml, one of"
            " Ultralytics' names such as coco8.yaml, or 'digits' or 'shapes', which are made on first use."
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


def _data(places: Sequence[Any], model: str | None, *, resumes: bool) -> str | None:
    """Return the one data set of a call; a run to resume has its own."""
    if not places and resumes:
        return None
    if len(places) != 1 or not places[0]:
        if len(places) > 1:
            given = f"is named twice: {' and '.join(map(repr, places))}"
        else:
            given = "is missing" if model is None else f"is missing ({model} is the model)"
        raise InvalidCallError(f"{WHERE}: the data set {given}. Name one, such as 'data.yaml' or 'digits'.")
    if not isinstance(places[0], str) or places[0].startswith("["):
        raise InvalidCallError(
            f"{WHERE}: the data set is {places[0]!r}. Name one, such as 'data.yaml' or 'digits'; 'yolo-stable yolo train' takes"
            " several."
        )
    return places[0]


def switch(value: Any, where: str) -> bool:
    """Return what ``guard=`` says.

    Raises:
        InvalidCallError: It is neither True nor False; the message starts with ``where``.
    """
    if value not in (True, False):
        raise InvalidCallError(
            f"{where}: guard={value} is not allowed. It must be True or False; settings are guard.NAME=VALUE."
        )
    return bool(value)


def _model(settings: dict[str, Any]) -> str | None:
    """Take the model out of the settings."""
    model = settings.pop("model", None)
    if model is None:
        return None
    what = "is empty" if not model else "is a folder" if Path(str(model)).is_dir() else ""
    if what:
        raise InvalidCallError(f"{WHERE}: model={model} {what}. {_instead_of(str(model))}")
    return str(model)


def _instead_of(folder: str) -> str:
    """Say what to give instead of a folder."""
    inside = (Path(folder, *path) for path in (("weights", "last.pt"), ("last.pt",)))
    found = next((path for path in inside if path.is_file()), None) if folder else None
    if found is not None:
        return f"Give its checkpoint: model={found}."
    return "Give a checkpoint (.pt) or a YAML, or leave model out for Ultralytics' default."


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
