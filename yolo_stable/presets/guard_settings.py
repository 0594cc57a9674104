"""Guard settings: everything with the prefix ``guard.``, that is the guard's own settings and the trainer's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._shared.secret_url import SecretURL
from ..errors import InvalidCallError
from ..guard import GuardConfig
from ..guard.config import STEPS
from ..guard.setting_checks import (
    mapping_of,
    require_count,
    require_names,
    require_positive,
    require_share,
    require_switch,
)

GUARD_DEFAULTS = {
    "max_jump": 10.0,
    "max_consecutive": 20,
    "snapshot_every": 16,
    "max_loss_rise": 4.0,
    "max_norm_rise": 10.0,
}
"""Defaults of the guard in an Ultralytics trainer that differ from those in any other loop."""
STEP_VARIABLE = "YOLO_STABLE_STEP"
"""Environment variable with the default of ``guard.step``, for scripts that name no settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainerConfig:
    """What a guarded trainer does around its guard; on the command line ``guard.incidents=3`` and so on.

    Raises:
        InvalidCallError: A value has the wrong type or is out of its range.

    Examples:
        >>> TrainerConfig(incidents=3).incidents
        3
    """

    collapse: float | None = 0.1
    """Two validations in a row, with new steps in between, with a fitness below this share of the best one, in (0, 1), suggest a
    collapse. It is one when the best state also has a lower loss on training batches; then that state is restored. None: not
    judged, as always with several GPUs."""

    stop_at_zero: bool = False
    """Count epochs at fitness 0 against Ultralytics' ``patience``, so that a run that finds nothing ends. Stock does not, since a
    training from scratch may find nothing for long; then a warning says so once."""

    save_every_steps: int | None = None
    """Optimizer steps between two checkpoints within an epoch, >= 1; None: none."""

    incidents: int | None = 10
    """Incidents of a run that are written in full, with everything for a replay, >= 1; ten times as many are examined, and
    further ones are counted. None: none."""

    incident_bytes: int | None = 1_000_000_000
    """Bytes of batch and state that an incident may take on the disk, >= 1. Beyond that, first the optimizer's state is left out,
    which no replay needs, then the weights, then the batch; the incident and the line about it say so. None: any size."""

    autopsy_seconds: float | None = 60.0
    """Time for the autopsy of an incident, > 0. None: no autopsies during the run."""

    quarantine: bool = True
    """Leave an image out of the rest of the run once it was found guilty twice, and list it in ``quarantine.txt``."""

    quarantine_from: str | None = None
    """A ``quarantine.txt``, of another run or written by hand, whose images are left out from the start."""

    max_unreadable: float | None = 0.1
    """Share of the training images, in (0, 1), that may become unreadable during training before it halts; others replace them.
    Up to three files never halt it while half of the images remain. None: any share, until no image can be drawn."""

    telemetry_every: int | None = 10
    """Optimizer steps between two lines of ``guard.jsonl`` with loss, norm, learning rates and so on, >= 1. None: no such lines
    and no warnings."""

    warn_norm: float | None = 100.0
    """Warn when the norm before clipping is above this in most steps, or far above it once, > 0. None: never."""

    report: bool = True
    """Write ``report.html`` at the end of the run, however it ends."""

    alert: SecretURL | str | None = None
    """An ``http`` or ``https`` address that gets a line of JSON for a burst of rejections, a rollback, a lower precision, a halt
    and the end of the run; Slack and Discord get theirs. It is a secret: all files have its host alone. None: that of the
    environment variable ``YOLO_STABLE_ALERT``, if there is one."""

    def __post_init__(self) -> None:
        for name in ("save_every_steps", "incidents", "incident_bytes", "telemetry_every"):
            require_count(name, getattr(self, name), 1, allow_none=True)
        for name in ("autopsy_seconds", "warn_norm"):
            require_positive(name, getattr(self, name), allow_none=True)
        for name in ("collapse", "max_unreadable"):
            require_share(name, getattr(self, name))
        if not isinstance(self.quarantine_from, (str, type(None))):
            raise InvalidCallError(
                f"guard.quarantine_from={self.quarantine_from!r} is not allowed. It must be the path of a file, or None."
            )
        for name in ("quarantine", "report", "stop_at_zero"):
            require_switch(name, getattr(self, name))
        object.__setattr__(self, "alert", secret_url("guard.alert", self.alert))


def secret_url(name: str, given: object) -> SecretURL | None:
    """Return the address of a setting.

    Args:
        name: Of the setting, for the message.
        given: As a user wrote it; None for none.

    Raises:
        InvalidCallError: It is none. The message does not repeat it, since it may hold a key.
    """
    if given is None or isinstance(given, SecretURL):
        return given
    try:
        if not isinstance(given, str):
            raise ValueError(f"it is no text, but {type(given).__name__}")
        return SecretURL(given)
    except ValueError as error:
        raise InvalidCallError(
            f"{name} is no address: {error}. It must be one such as https://hooks.slack.com/services/..., or None (off)."
        ) from None


OF_GUARD = tuple(field.name for field in dataclasses.fields(GuardConfig))
OF_TRAINER = tuple(field.name for field in dataclasses.fields(TrainerConfig))


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardSettings:
    """The settings of the guard and of the trainer, as a user gives them together."""

    guard: GuardConfig
    trainer: TrainerConfig

    @classmethod
    def of(cls, given: Mapping[str, Any] | GuardConfig | GuardSettings | None = None) -> GuardSettings:
        """Sort what was passed as ``guard=`` to a trainer.

        Args:
            given: Names and values of either kind, over the defaults of a trainer; a ``GuardConfig`` is used as it is.

        Raises:
            InvalidCallError: It is not a mapping, or a name or value is not allowed; also that of the environment variable.

        Examples:
            >>> GuardSettings.of({"max_norm": 5.0, "report": False}).trainer.report
            False
        """
        if isinstance(given, GuardSettings):
            return given
        if isinstance(given, GuardConfig):
            return cls(guard=given, trainer=TrainerConfig())
        settings = mapping_of(given)
        require_names(settings, (*OF_GUARD, *OF_TRAINER))
        guard = {
            **GUARD_DEFAULTS,
            **_step_by_default(),
            **{name: value for name, value in settings.items() if name in OF_GUARD},
        }
        trainer = {name: value for name, value in settings.items() if name in OF_TRAINER}
        return cls(guard=GuardConfig(**guard), trainer=TrainerConfig(**trainer))

    def changed(self, given: Mapping[str, Any]) -> GuardSettings:
        """Return the settings with some of them changed."""
        return GuardSettings.of({**self.to_dict(), "alert": self.trainer.alert, **given})

    def to_dict(self) -> dict[str, Any]:
        """Return all of them as plain values, for YAML, JSON and :meth:`of`; of the secret ``alert`` the host alone."""
        alert = None if self.trainer.alert is None else str(self.trainer.alert)
        return {**self.guard.to_dict(), **dataclasses.asdict(self.trainer), "alert": alert}


def _step_by_default() -> dict[str, Any]:
    """Return what the environment variable says."""
    step = os.environ.get(STEP_VARIABLE)
    if not step:
        return {}
    if step not in STEPS:
        raise InvalidCallError(
            f"{STEP_VARIABLE}={step!r} is not allowed. The environment variable must be one of {', '.join(STEPS)}."
        )
    return {"step": step}
