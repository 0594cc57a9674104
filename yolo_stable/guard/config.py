"""The settings of the guard, checked when they are made."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidCallError, nearest

STEPS = ("auto", "fused", "reference")
PLACES = ("auto", "device", "host")
TRAINER_DEFAULTS = {
    "max_jump": 10.0,
    "max_consecutive": 20,
    "snapshot_every": 16,
    "max_loss_rise": 4.0,
    "max_norm_rise": 10.0,
    "collapse": 0.1,
}
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
    """Rejections in a row, with no step applied in between, after which training is rolled back, or halts where there are no
    snapshots, >= 1. The guarded trainers use 20."""

    max_share: float | None = 0.5
    """Share of the last 500 to 1000 windows that may be lost because all that was in them was rejected, in (0, 1); beyond it
    training halts. None: any. Bad batches now and then never end a run."""

    max_total: int | None = None
    """Rejections since the run was begun after which training halts, >= 1. None: however many; the share counts."""

    min_scale: float = 2.0**-14
    """Floor of a GradScaler's loss scale, > 0. Torch has none: at scale 0 the first clean step writes NaN."""

    snapshot_every: int | None = None
    """Optimizer steps between two copies of the whole state in memory, >= 1: so many are lost at most when it has to be put
    back. None, the default here: no copies, no going back. The guarded trainers use 16."""

    snapshots: int = 2
    """Copies that are kept, >= 2: an older one is there when the newest leads astray again."""

    snapshot_device: str = "auto"
    """Where copies are kept: ``"device"``, ``"host"``, or ``"auto"``: the host when the device is short of memory."""

    max_value: float | None = 1e8
    """Largest magnitude that is believed of a weight, a running mean or a momentum, > 0; of running variances and second
    moments, its square. What is larger before the first step is believed. None: any finite number."""

    max_loss_rise: float | None = None
    """Loss that stays above this many times its level for ``patience`` steps is suspicious, > 1. Training has diverged when an
    older copy of the weights is far better on the same batches, for which ``StepGuard`` needs ``again=``. None: not judged.
    The guarded trainers use 4."""

    max_norm_rise: float | None = None
    """The same for the gradient norm before clipping, > 1. The guarded trainers use 10."""

    patience: int = 32
    """Optimizer steps in a row that loss or norm may be out of line, >= 1."""

    collapse: float | None = None
    """Two validations in a row, with new steps in between, whose fitness is below this share of the best one, in (0, 1), raise
    the suspicion of a collapse. It is one when the loss of training batches is higher than that of the best state as well;
    then that is put back. None: not judged. The guarded trainers, which alone validate, use 0.1; with several GPUs not judged."""

    stop_at_zero: bool = False
    """Let epochs at fitness 0 count against Ultralytics' ``patience``, so that a run that finds nothing ends. Stock lets them
    pass, as a training from scratch may find nothing for long; then a warning says so once. Only the guarded trainers."""

    max_rollbacks: int = 8
    """Rollbacks after which the next precision is tried, and when there is none training halts, >= 1. Those for a training that
    went astray are forgiven after ``10 * ramp_steps`` steps without one; those for ruined numbers or for rejections count for
    themselves, and are forgiven as soon as a newer healthy state is kept, unless the same number is ruined again at once."""

    ramp_steps: int = 100
    """Optimizer steps over which the learning rate, halved when training went astray, ramps back, >= 1."""

    lower_precision: bool = True
    """Whether float16 may be given up for bfloat16, and that for float32, when rollbacks do not help."""

    save_every_steps: int | None = None
    """Optimizer steps between two checkpoints within an epoch, >= 1; only the guarded trainers save. None: none within."""

    incidents: int | None = 10
    """Incidents of a run that are written in full, with all that a replay needs, >= 1; ten times as many are looked into, and
    further ones are counted. None: none, and nothing is remembered for them. This and the three below: only the guarded
    trainers."""

    autopsy_seconds: float | None = 60.0
    """How long looking into an incident may take at most, > 0. None: nothing is looked into during the run."""

    quarantine: bool = True
    """Leave an image out of the rest of the run when it was found guilty twice, and list it in ``quarantine.txt``."""

    quarantine_from: str | None = None
    """A ``quarantine.txt``, of another run or written by hand, whose images are left out from the start."""

    max_unreadable: float | None = 0.1
    """Share of the training images, in (0, 1), that may have become unreadable while training runs, others being drawn in
    their place, before it halts; up to three files never halt it while half of the images remain. None: any share, until no
    image can be drawn. Only the guarded trainers."""

    telemetry_every: int | None = 10
    """Optimizer steps between two lines of ``guard.jsonl`` with loss, norm, learning rates and so on, >= 1. None: no such
    lines, and no warnings made of them. Only the guarded trainers."""

    warn_norm: float | None = 100.0
    """Warn when the norm before clipping is above this in most steps, or far above it in a single one, > 0. None: no warning
    of the norm's size. Only the guarded trainers."""

    report: bool = True
    """Write ``report.html`` when the run has ended, however it did; only the guarded trainers."""

    def __post_init__(self) -> None:
        for name in ("max_norm", "reject_norm", "max_jump", "max_value", "max_loss_rise", "max_norm_rise"):
            _check_positive_number(name, getattr(self, name), allow_none=True)
        for name in ("autopsy_seconds", "warn_norm"):
            _check_positive_number(name, getattr(self, name), allow_none=True)
        _check_positive_number("min_scale", self.min_scale, allow_none=False)
        for name, least, allow_none in (
            ("max_consecutive", 1, False),
            ("max_total", 1, True),
            ("snapshot_every", 1, True),
            ("snapshots", 2, False),
            ("patience", 1, False),
            ("max_rollbacks", 1, False),
            ("ramp_steps", 1, False),
            ("save_every_steps", 1, True),
            ("incidents", 1, True),
            ("telemetry_every", 1, True),
        ):
            _check_count(name, getattr(self, name), least, allow_none=allow_none)
        for name in ("max_jump", "max_loss_rise", "max_norm_rise"):
            value = getattr(self, name)
            if value is not None and value <= 1.0:
                raise InvalidCallError(f"guard.{name}={value!r} is not allowed. It must be above 1, or None (off).")
        if self.step not in STEPS:
            raise InvalidCallError(f"guard.step={self.step!r} is not allowed. It must be one of {', '.join(STEPS)}.")
        for name in ("collapse", "max_unreadable", "max_share"):
            share = getattr(self, name)
            _check_positive_number(name, share, allow_none=True)
            if share is not None and share >= 1.0:
                raise InvalidCallError(f"guard.{name}={share!r} is not allowed. It must be below 1, or None (off).")
        if self.snapshot_device not in PLACES:
            raise InvalidCallError(
                f"guard.snapshot_device={self.snapshot_device!r} is not allowed. It must be one of {', '.join(PLACES)}."
            )
        if not isinstance(self.quarantine_from, (str, type(None))):
            raise InvalidCallError(
                f"guard.quarantine_from={self.quarantine_from!r} is not allowed. It must be the path of a file, or None."
            )
        for name in ("batchnorm", "lower_precision", "quarantine", "report", "stop_at_zero"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidCallError(
                    f"guard.{name}={getattr(self, name)!r} is not allowed. It must be True or False."
                )

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


def _check_count(name: str, value: Any, least: int, *, allow_none: bool) -> None:
    if value is None and allow_none:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        off = " or None (off)" if allow_none else ""
        raise InvalidCallError(
            f"guard.{name}={value!r} is not allowed. It must be a whole number of {least} or more{off}."
        )


def _check_positive_number(name: str, value: Any, *, allow_none: bool) -> None:
    if value is None and allow_none:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0.0 < value <= sys.float_info.max):
        off = " or None (off)" if allow_none else ""
        raise InvalidCallError(f"guard.{name}={value!r} is not allowed. It must be a finite number above 0{off}.")
