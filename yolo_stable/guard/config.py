"""Guard settings: those of the guard in any training loop, checked on construction."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidCallError
from .setting_checks import mapping_of, require_count, require_names, require_positive, require_share, require_switch

STEPS = ("auto", "fused", "reference")
PLACES = ("auto", "device", "host")


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
    """Global 2-norm to which gradients are clipped, > 0; Ultralytics clips at 10.0. None: never clip."""

    reject_norm: float | None = 1e12
    """Reject a window whose norm before clipping is finite but above this. The default is far beyond any honest gradient:
    clipping to 10 scales all else in the window by 1e-11, below one unit in the last place of float32, and leaves only the faulty
    element. None: apply any finite norm."""

    batchnorm: bool = True
    """Check the running statistics that a forward pass wrote, and undo them with a rejected batch."""

    step: str = "auto"
    """How to apply a window: ``"reference"``, bit for bit as stock; ``"fused"``, the same to rounding, with clip and skip inside
    the optimizer's kernel; ``"auto"``: fused if a rehearsal shows that it can be trusted, else reference."""

    max_jump: float | None = None
    """Reject a micro-batch after which a running statistic exceeds ``max_jump * (abs(before) + 1)``, > 1. One huge pixel does
    that: BatchNorm normalises it away, loss and gradients stay ordinary, and only the validation sees the ruined statistics.
    After three such rejections in a row the guard believes the next micro-batch: then it is the data. The guarded trainers use
    10 (honest YOLO training, also with ten times the usual learning rate, stayed below 1.5). None, off, is the default of
    ``StepGuard``, since a network of one's own may get numbers of any size."""

    max_consecutive: int = 50
    """Rejections in a row, with no applied step in between, after which training rolls back, or halts without snapshots, >= 1.
    The guarded trainers use 20."""

    max_share: float | None = 0.5
    """Share of the last 500 to 1000 windows that may be lost to rejections, in (0, 1); beyond it training halts. None: any. Bad
    batches now and then never end a run."""

    max_total: int | None = None
    """Rejections in the whole run after which training halts, >= 1. None: no limit but ``max_share``."""

    min_scale: float = 2.0**-14
    """Floor of a GradScaler's loss scale, > 0. Torch has none: at scale 0 the first clean step writes NaN."""

    snapshot_every: int | None = None
    """Optimizer steps between two audits of the state, each with a copy in memory, >= 1: a rollback loses at most so many. None:
    no audit, no copies, no rollback. The guarded trainers use 16."""

    snapshots: int = 2
    """Copies kept, >= 2: an older one remains when the newest leads astray again."""

    snapshot_device: str = "auto"
    """Where to keep copies: ``"device"``, ``"host"``, or ``"auto"``: the host when the device is short of memory."""

    max_value: float | None = 1e8
    """Largest magnitude believed of a weight, a running mean or a momentum, > 0; of running variances and second moments, its
    square. A larger number before the first step is believed. None: any finite number."""

    max_loss_rise: float | None = None
    """A loss above this many times its baseline for ``patience`` steps is suspicious, > 1. Training has diverged if an older copy
    of the weights is far better on the same batches, for which ``StepGuard`` needs ``again=``. None: not judged. The guarded
    trainers use 4."""

    max_norm_rise: float | None = None
    """The same for the gradient norm before clipping, > 1. The guarded trainers use 10."""

    patience: int = 32
    """Optimizer steps in a row that loss or norm may be out of line, >= 1."""

    max_rollbacks: int = 8
    """Rollbacks after which the guard tries the next precision, or halts when there is none, >= 1. Rollbacks for a divergence
    are forgiven after ``10 * ramp_steps`` steps without one. Those for ruined numbers or rejections count apart, and are
    forgiven with the next healthy snapshot, unless the same number is ruined again at once."""

    ramp_steps: int = 100
    """Optimizer steps over which the learning rate, halved after a divergence, ramps back, >= 1."""

    lower_precision: bool = True
    """Whether to replace float16 by bfloat16, and that by float32, when rollbacks do not help."""

    def __post_init__(self) -> None:
        for name in ("max_norm", "reject_norm", "max_jump", "max_value", "max_loss_rise", "max_norm_rise"):
            require_positive(name, getattr(self, name), allow_none=True)
        require_positive("min_scale", self.min_scale, allow_none=False)
        for name, least, allow_none in (
            ("max_consecutive", 1, False),
            ("max_total", 1, True),
            ("snapshot_every", 1, True),
            ("snapshots", 2, False),
            ("patience", 1, False),
            ("max_rollbacks", 1, False),
            ("ramp_steps", 1, False),
        ):
            require_count(name, getattr(self, name), least, allow_none=allow_none)
        for name in ("max_jump", "max_loss_rise", "max_norm_rise"):
            value = getattr(self, name)
            if value is not None and value <= 1.0:
                raise InvalidCallError(f"guard.{name}={value!r} is not allowed. It must be above 1, or None (off).")
        if self.step not in STEPS:
            raise InvalidCallError(f"guard.step={self.step!r} is not allowed. It must be one of {', '.join(STEPS)}.")
        require_share("max_share", self.max_share)
        if self.snapshot_device not in PLACES:
            raise InvalidCallError(
                f"guard.snapshot_device={self.snapshot_device!r} is not allowed. It must be one of {', '.join(PLACES)}."
            )
        for name in ("batchnorm", "lower_precision"):
            require_switch(name, getattr(self, name))

    @classmethod
    def from_mapping(cls, settings: Mapping[str, Any] | GuardConfig | None) -> GuardConfig:
        """Build the settings from what a user passed as ``guard=``.

        Args:
            settings: Setting names and values; None or an empty mapping for all defaults; a config is returned as is.

        Raises:
            InvalidCallError: ``settings`` is not a mapping, or a name or value is not allowed.
        """
        if isinstance(settings, GuardConfig):
            return settings
        given = mapping_of(settings)
        require_names(given, [field.name for field in dataclasses.fields(cls)])
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for YAML, JSON and :meth:`from_mapping`."""
        return dataclasses.asdict(self)
