"""Run plan: the guard settings and the preset of a run, beyond Ultralytics' own arguments."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .._shared.secret_url import SecretURL
from ..errors import InvalidCallError
from ..guard import GuardConfig
from .guard_settings import GuardSettings, TrainerConfig, secret_url
from .presets import AUTO, NONE, hyperparameters

ALERT = "YOLO_STABLE_ALERT"
"""Environment variable with the address of ``guard.alert``; workers of a multi-GPU run get it here, and in no file."""
INJECTED = "injected"
"""The key of ``args.yaml`` with the faults that were injected into a run; a record, no setting."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """The keys ``guard`` and ``preset`` of a trainer, resolved."""

    guard: GuardConfig
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    """What the trainer does around the guard."""
    preset: str | None = None
    """Name or path of the preset below the explicit arguments; None: Ultralytics' own settings."""
    why: str = ""
    """Why this preset, if the user did not name it."""
    overridden: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Arguments that differ from the preset: (value of the preset, value of the run)."""
    changed: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """Arguments of a resumed run that have changed: (before, now)."""
    injected: tuple[str, ...] = ()
    """Faults that were injected into the run, also into its earlier parts."""

    def to_dict(self) -> dict[str, Any]:
        """Return what ``args.yaml`` keeps and a multi-GPU worker gets; no secret is in it."""
        settings = GuardSettings(guard=self.guard, trainer=self.trainer)
        return {"guard": settings.to_dict(), "preset": self.preset}

    def with_injected(self, names: Iterable[str]) -> RunPlan:
        """Return the plan with further injected faults."""
        return dataclasses.replace(self, injected=tuple(dict.fromkeys((*self.injected, *names))))

    def with_alert(self) -> RunPlan:
        """Return the plan with the address of the environment where the settings have none, or only what a file has kept.

        Raises:
            InvalidCallError: The environment's is no address.
        """
        given, kept = os.environ.get(ALERT, "").strip(), self.trainer.alert
        if not given or (isinstance(kept, SecretURL) and not kept.masked):
            return self
        return dataclasses.replace(self, trainer=dataclasses.replace(self.trainer, alert=secret_url(ALERT, given)))


def choose_preset(model: str | Path | object, pretrained: object = True) -> tuple[str, str]:
    """Choose a preset for a model; return its name and the reason.

    Args:
        model: As passed to ``model=``.
        pretrained: As Ultralytics' argument: a path loads those weights, ``False`` loads none.

    Examples:
        >>> choose_preset("yolo11n.pt")[0], choose_preset("yolo11n.yaml")[0]
        ('stable', 'guarded')
    """
    if pretrained is False:
        return "guarded", "pretrained=False starts from nothing; a conservative learning rate would starve it"
    if not isinstance(pretrained, (str, Path)) and str(model).lower().endswith((".yaml", ".yml")):
        return "guarded", "the model starts from a YAML; a conservative learning rate would starve it"
    return "stable", "the model starts from weights; a conservative learning rate protects them"


def separate(overrides: Mapping[str, Any] | None) -> tuple[RunPlan, dict[str, Any]]:
    """Take ``guard`` and ``preset`` out of a trainer's overrides, and put the preset below the rest.

    Without a preset no argument of Ultralytics changes. Later ones win: Ultralytics' defaults, preset, explicit arguments. A
    resumed run keeps the guard settings of its ``args.yaml`` that are not given anew. Its hyperparameters come from its
    checkpoint; another preset overrides them.

    Args:
        overrides: What ``YOLO(...).train(...)`` passes to the trainer; not changed.

    Returns:
        The plan, and overrides that Ultralytics understands.

    Raises:
        InvalidCallError: Unknown guard setting, wrong value, unknown preset; what stands in ``YOLO_STABLE_ALERT`` is no address.
    """
    rest = dict(overrides or {})
    guard, preset = rest.pop("guard", None), rest.pop("preset", None)
    if not isinstance(preset, (str, os.PathLike, type(None))):
        raise InvalidCallError(f"preset={preset!r} is not allowed. It must be the name or the path of a preset.")
    preset = None if preset == NONE else preset
    if rest.get("resume"):
        before = _settings_of_resumed_run(rest)
        settings = GuardSettings.of(guard)  # checked first: the message is about the call
        try:
            saved = GuardSettings.of(before.get("guard"))
        except InvalidCallError as error:
            raise InvalidCallError(f"args.yaml of the run to resume: {error} Mend it.") from error
        of_guard_alone = isinstance(guard, GuardConfig)
        settings = dataclasses.replace(saved, guard=guard) if of_guard_alone else saved.changed(guard or {})
        was, now = saved.to_dict(), settings.to_dict()
        changed = {f"guard.{name}": (was[name], now[name]) for name in now if was[name] != now[name]} if before else {}
        kept, injected = before.get("preset"), before.get(INJECTED)
        if preset in (None, AUTO) or _same(preset, kept):
            plan = RunPlan(guard=settings.guard, trainer=settings.trainer, preset=None if kept is None else str(kept))
        else:
            plan, rest = _with_preset(settings, str(preset), rest)
        plan = dataclasses.replace(plan, changed=changed)
        return plan.with_injected(map(str, injected) if isinstance(injected, list) else ()).with_alert(), rest
    settings = GuardSettings.of(guard)
    if preset is None:
        return RunPlan(guard=settings.guard, trainer=settings.trainer).with_alert(), rest
    why = ""
    if preset == AUTO:
        preset, why = choose_preset(rest.get("model", ""), rest.get("pretrained", True))
    plan, rest = _with_preset(settings, str(preset), rest, why)
    return plan.with_alert(), rest


def checkpoint_to_resume(overrides: Mapping[str, Any]) -> Path | None:
    """Return the checkpoint to resume; None without a resume or a name.

    Args:
        overrides: As for :func:`separate`; ``resume=True`` means the model.
    """
    resume = overrides.get("resume")
    if not resume:
        return None
    named = str(overrides.get("model") or "") if resume is True else str(resume)
    if resume is True and not named.lower().endswith(".pt"):
        return None
    return Path(named).absolute()


def _with_preset(
    settings: GuardSettings, preset: str, rest: dict[str, Any], why: str = ""
) -> tuple[RunPlan, dict[str, Any]]:
    values = hyperparameters(preset)
    overridden = {k: (v, rest[k]) for k, v in values.items() if k in rest and rest[k] != v}
    plan = RunPlan(guard=settings.guard, trainer=settings.trainer, preset=preset, why=why, overridden=overridden)
    return plan, {**values, **rest}


def _same(preset: str | os.PathLike[str], kept: Any) -> bool:
    """Say whether two presets are the same, by name or as files."""
    a, b = os.fspath(preset), str(kept)
    return a == b or (os.path.isfile(a) and os.path.abspath(a) == os.path.abspath(b))


def _settings_of_resumed_run(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return the saved arguments of the run to resume; empty where it has none."""
    checkpoint = checkpoint_to_resume(overrides)
    if checkpoint is None:
        return {}
    saved = checkpoint.parent.parent / "args.yaml"  # RUN/weights/last.pt
    if not saved.is_file():
        return {}
    try:
        settings = yaml.safe_load(saved.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise InvalidCallError(f"{saved} of the run to resume cannot be read: {error}. Mend or remove it.") from error
    return settings if isinstance(settings, dict) else {}
