"""The settings of the guard, checked when they are made."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidCallError, nearest

STEPS = ("auto", "fused", "reference")
TRAINER_DEFAULTS = {"max_jump": 10.0}
"""Where the guarded Ultralytics trainers differ from the defaults below."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """Settings of a :class:`~yolo_stable.guard.StepGuard`; on the command line ``guard.max_norm=5.0`` and so on.

    Raises:
        InvalidCallError: A value has the wrong type or is out of its range.

    Examples:
        >>> GuardConfig(max_norm=5.0).max_norm
        5.0
        >>> GuardConfig.from_mapping({"max_nrom": 5.0})
        Traceback (most recent call last):
        yolo_stable.errors.InvalidCallError: guard has no setting 'max_nrom'. Did you mean 'max_norm'?
    """

    max_norm: float | None = 10.0
    """Global 2-norm that gradients are clipped to, > 0; Ultralytics clips at 10.0. None: never clip."""

    reject_norm: float | None = 1e12
    """A window whose norm before clipping is finite but above this is rejected. The default is far beyond any honest
    gradient: clipped to 10, whatever else the window held is scaled by 1e-11, below one unit in the last place of
    float32, so that only the faulty element would be left. None: any finite norm is applied."""

    batchnorm: bool = True
    """Check the running statistics that a forward pass wrote, and undo them with the batch that is rejected."""

    step: str = "auto"
    """How a window is applied: ``"reference"``, bit for bit as stock; ``"fused"``, the same to rounding with clip and skip
    inside the optimizer's kernel; ``"auto"``: fused where a rehearsal shows that it can be trusted, else reference."""

    max_jump: float | None = None
    """A micro-batch after which a running statistic exceeds ``max_jump * (|before| + 1)`` is rejected, > 1. One huge pixel does
    that: BatchNorm normalises it away, so that loss and gradients stay ordinary, and only the validation sees the ruined
    statistics. After three such rejections in a row the next micro-batch is believed: then it is the data. The guarded
    trainers use 10 (honest YOLO training, also with ten times the usual learning rate, was measured below 1.5); here the
    default is None, off, since a network of one's own may be fed numbers of any size."""

    max_consecutive: int = 50
    """Rejections in a row, with no step applied in between, after which training halts, >= 1."""

    max_total: int = 5000
    """Rejections since the run was begun or resumed after which training halts, >= 1."""

    min_scale: float = 2.0**-14
    """Floor of a GradScaler's loss scale, > 0. Torch has none: at scale 0 the first clean step writes NaN."""

    def __post_init__(self) -> None:
        for name, allow_none in (("max_norm", True), ("reject_norm", True), ("max_jump", True), ("min_scale", False)):
            _check_positive_number(name, getattr(self, name), allow_none=allow_none)
        for name in ("max_consecutive", "max_total"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidCallError(
                    f"guard.{name}={value!r} is not allowed. It must be a whole number of 1 or more."
                )
        if self.step not in STEPS:
            raise InvalidCallError(f"guard.step={self.step!r} is not allowed. It must be one of {', '.join(STEPS)}.")
        if not isinstance(self.batchnorm, bool):
            raise InvalidCallError(f"guard.batchnorm={self.batchnorm!r} is not allowed. It must be True or False.")

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | GuardConfig | None) -> GuardConfig:
        """Build the settings from what a user passed as ``guard=``.

        Args:
            settings: Setting names and values; None or an empty mapping for all defaults; a config is returned as is.

        Returns:
            The checked settings.

        Raises:
            InvalidCallError: ``settings`` is not a mapping, or a name or value is not allowed.
        """
        if isinstance(settings, GuardConfig):
            return settings
        if settings is None:
            return cls()
        if not isinstance(settings, Mapping):
            raise InvalidCallError(
                f"guard={settings!r} is not allowed. It must be a dict of settings such as {{'max_norm': 5.0}}."
            )
        valid = [field.name for field in dataclasses.fields(cls)]
        for name in settings:
            if name not in valid:
                raise InvalidCallError(
                    f"guard has no setting {name!r}.{nearest(str(name), valid) or ' Valid: ' + ', '.join(valid) + '.'}"
                )
        return cls(**settings)

    @classmethod
    def for_trainer(cls, settings: Mapping[str, Any] | GuardConfig | None) -> GuardConfig:
        """Build the settings of a guarded Ultralytics trainer: as :meth:`from_mapping`, with ``TRAINER_DEFAULTS`` below.

        Examples:
            >>> GuardConfig.for_trainer(None).max_jump, GuardConfig.for_trainer({"max_jump": None}).max_jump
            (10.0, None)
        """
        if settings is None or isinstance(settings, Mapping):
            return cls.from_mapping({**TRAINER_DEFAULTS, **(settings or {})})
        return cls.from_mapping(settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, ready for YAML or JSON and for :meth:`from_mapping`."""
        return dataclasses.asdict(self)


def _check_positive_number(name: str, value: Any, *, allow_none: bool) -> None:
    if value is None and allow_none:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0.0 < value <= sys.float_info.max):
        off = " or None (off)" if allow_none else ""
        raise InvalidCallError(f"guard.{name}={value!r} is not allowed. It must be a finite number above 0{off}.")
