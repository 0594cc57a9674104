"""Trainer view: the read-only view of a trainer that its services get."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import nn

from ..guard import StepGuard
from ..presets.run_plan import RunPlan
from ..runlog.epoch_metrics import EpochMetrics
from ..runlog.writer import RunLog


class TrainerView:
    """A trainer that can be read and not written; a test passes a ``SimpleNamespace`` instead.

    Args:
        trainer: The guarded trainer; its attributes are read at the moment they are asked for.

    Examples:
        >>> from types import SimpleNamespace
        >>> view = TrainerView(SimpleNamespace(epoch=3))
        >>> view.epoch
        3
        >>> view.epoch = 4
        Traceback (most recent call last):
        AttributeError: a service reads its trainer; epoch is written by GuardedTrainerMixin alone
    """

    __slots__ = ("_trainer",)

    if TYPE_CHECKING:
        # of the guarded trainer
        plan: RunPlan
        guard: StepGuard | None
        """None until the training is set up."""
        run_log: RunLog
        telemetry: EpochMetrics
        batch_number: int
        """Number of the current batch in its epoch, from 1; 0 before the first."""
        # of Ultralytics' trainer
        args: Any
        save_dir: Path
        wdir: Path
        last: Path
        csv: Path
        data: dict[str, Any]
        device: torch.device
        model: nn.Module
        """A path or a name until the network is built."""
        optimizer: torch.optim.Optimizer
        scheduler: Any
        ema: Any
        amp: Any
        accumulate: int
        train_loader: Any
        test_loader: Any
        validator: Any
        stopper: Any
        callbacks: dict[str, list[Any]]
        loss: torch.Tensor
        loss_items: dict[str, torch.Tensor]
        loss_names: tuple[str, ...]
        metrics: dict[str, Any] | None
        best_fitness: float | None
        nan_recovery_attempts: int
        batch_size: int
        epoch: int
        """From 0."""
        epochs: int
        start_epoch: int
        stop: bool
        resume: Any
        ddp: bool
        """Whether this process only starts the workers of a multi-GPU run."""

    def __init__(self, trainer: Any) -> None:
        object.__setattr__(self, "_trainer", trainer)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # not its ``__dict__`` either, through which it could be written
                raise AttributeError(f"a service does not read {name} of its trainer")
            return getattr(self._trainer, name)

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a service reads its trainer; {name} is written by GuardedTrainerMixin alone")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._trainer,)  # a copy looks at the copied trainer

    @property
    def name(self) -> str:
        """Name of the trainer's class."""
        return type(self._trainer).__name__

    def is_warming_up(self, most: int) -> bool:
        """Return whether the loop still warms up, by its own arithmetic.

        Args:
            most: Batches from the start after which nothing counts as warm-up any more.
        """
        batches = len(self.train_loader)
        last = self._trainer._get_warmup_iterations(batches)
        return last > 0 and batches * self.epoch + self.batch_number - 1 <= min(last, most)
