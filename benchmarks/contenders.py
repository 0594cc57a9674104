"""The three that are compared: stock, the popular clip-and-skip recipe, and the guarded trainer."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG, LOGGER
from ultralytics.utils.torch_utils import ModelEMA

from yolo_stable import StableDetectionTrainer, StepGuard
from yolo_stable.presets.guard_settings import GuardSettings
from yolo_stable.presets.run_plan import RunPlan
from yolo_stable.runlog.epoch_metrics import EpochMetrics
from yolo_stable.runlog.writer import RunLog
from yolo_stable.trainer.services import Services


class ClipAndSkipTrainer(DetectionTrainer):
    """The recipe as it is passed around: clip the norm, leave the step out when it is not finite."""

    def optimizer_step(self) -> None:
        """Take the step unless the norm is not finite; BatchNorm and the EMA are not looked at."""
        model: Any = self.model
        optimizer: Any = self.optimizer
        self.scaler.unscale_(optimizer)
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=10.0)
        if torch.isfinite(norm):
            self.scaler.step(optimizer)
        self.scaler.update()
        optimizer.zero_grad()
        if self.ema:
            self.ema.update(self.model)


TRAINERS: dict[str, type[DetectionTrainer]] = {
    "stock": DetectionTrainer,
    "clip-and-skip": ClipAndSkipTrainer,
    "guarded": StableDetectionTrainer,
}


def quiet() -> None:
    """Keep Ultralytics from writing into the table."""
    LOGGER.setLevel(logging.ERROR)


def step_only(name: str, model_yaml: str, optimizer: str, *, step: str = "auto") -> Any:
    """Return a trainer with just what ``optimizer_step()`` needs: model, optimizer, scaler, EMA and, if it has one, guard.

    Args:
        name: A key of ``TRAINERS``.
        model_yaml: The network, from its YAML with 80 classes.
        optimizer: As Ultralytics' ``optimizer=``.
        step: ``guard.step`` of the guarded trainer.
    """
    torch.manual_seed(0)
    kind = TRAINERS[name]
    trainer: Any = kind.__new__(kind)
    if name == "guarded":
        trainer.services = Services.of(trainer, lambda epoch: None)
        trainer.guard = trainer.ema = None
        trainer.telemetry = EpochMetrics()
        trainer.run_log = RunLog(Path(), resumed=False, write=False)
        trainer.batch_number, trainer.epoch, trainer.train_loader = 1, 0, range(1)
    trainer.args = get_cfg(DEFAULT_CFG)
    trainer.device = torch.device("cpu")
    trainer.data = {"nc": 80}
    trainer.tloss = None
    trainer.model = DetectionModel(model_yaml, nc=80, verbose=False).train()
    for key, parameter in trainer.model.named_parameters():
        if ".dfl" in key:
            parameter.requires_grad = False  # as the trainer freezes it
    trainer.scaler = torch.amp.GradScaler("cuda", enabled=False)
    trainer.optimizer = trainer.build_optimizer(trainer.model, optimizer, lr=0.001, momentum=0.9, decay=5e-4)
    trainer.ema = ModelEMA(trainer.model)
    if name == "guarded":
        trainer.plan = RunPlan(guard=GuardSettings.of({"step": step}).guard)
        config = trainer.plan.guard
        trainer.guard = StepGuard(trainer.model, trainer.optimizer, ema=trainer.ema, config=config)
    return trainer


def fill_gradients(trainer: Any, seed: int) -> None:
    """Give every trainable parameter a fresh gradient, as a backward pass would."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.randn(parameter.shape, generator=generator) * 0.05
