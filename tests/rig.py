"""A training small enough for a thousand runs, with everything that a state can have; for the tests of going back."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from ultralytics.optim import MuSGD
from ultralytics.utils.torch_utils import ModelEMA

from yolo_stable.guard import Escalation, StepGuard
from yolo_stable.guard.state import TrainingState

OPTIMIZERS = ("SGD", "AdamW", "RMSprop", "MuSGD", "Adagrad")
AVERAGES = ("none", "torch", "ultralytics")


def network(seed: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, 1))


def optimizer_for(name: str, model: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    parameters = list(model.parameters())
    if name == "SGD":
        return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
    if name == "MuSGD":
        shared = {"lr": lr, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
        matrices = {"params": [p for p in parameters if p.ndim >= 2], "use_muon": True, **shared}
        return MuSGD([matrices, {"params": [p for p in parameters if p.ndim < 2], **shared}], muon=0.2, sgd=1.0)
    if name == "RMSprop":
        return torch.optim.RMSprop(parameters, lr=lr, momentum=0.9)
    return getattr(torch.optim, name)(parameters, lr=lr)


class Rig:
    """One run: model with BatchNorm and Dropout, optimizer, scaler, average and schedule.

    Args:
        optimizer: One of `OPTIMIZERS`.
        average: One of `AVERAGES`.
        scaled: With a loss scaler that grows every third step.
        **settings: Those of the guard.
    """

    def __init__(
        self, optimizer: str = "SGD", average: str = "ultralytics", *, scaled: bool = False, **settings: Any
    ) -> None:
        random.seed(1)
        np.random.seed(2)
        self.model = network()
        self.optimizer = optimizer_for(optimizer, self.model)
        self.ema: Any = None
        if average == "torch":
            self.ema = AveragedModel(self.model, use_buffers=True)
        elif average == "ultralytics":
            self.ema = ModelEMA(self.model, decay=0.9, tau=10)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) if scaled else None
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1.0 / (1.0 + 0.1 * step))
        self.escalations: list[Escalation] = []
        self.guard = StepGuard(
            self.model,
            self.optimizer,
            scaler=self.scaler,
            ema=self.ema,
            schedules={"lr": self.schedule},
            on_escalation=self.escalations.append,
            **settings,
        )

    @property
    def state(self) -> TrainingState:
        return self.guard.state

    @property
    def averaged(self) -> nn.Module:
        return self.ema.ema if isinstance(self.ema, ModelEMA) else self.ema

    def bare_step(self, x: Tensor) -> None:
        """Take a step as a loop without the guard does."""
        x = x + 0.1 * random.random() + 0.1 * float(np.random.rand())
        loss = self.model(x).square().mean()
        if self.scaler is None:
            loss.backward()
            self.optimizer.step()
        else:
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        self.optimizer.zero_grad()
        self.follow()

    def step(self, *micro_batches: Tensor) -> bool:
        """Take a guarded step of one window."""
        for x in micro_batches:
            self.guard.backward((self.model(x) - 1.0).square().mean())
        return self.finish()

    def finish(self) -> bool:
        """End the window that was begun."""
        applied = bool(self.guard.step())
        if applied:
            self.follow()
        self.guard.settle()
        return applied

    def follow(self) -> None:
        if isinstance(self.ema, ModelEMA):
            self.ema.update(self.model)
        elif self.ema is not None:
            self.ema.update_parameters(self.model)
        self.schedule.step()

    def weights(self) -> dict[str, Any]:
        """Return what a rollback brings back, copied, without asking the code under test."""
        return copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict()["state"],
                "ema": None if self.ema is None else (self.averaged.state_dict(), getattr(self.ema, "updates", None)),
                "scaler": None if self.scaler is None else self.scaler.state_dict(),
            }
        )

    def everything(self) -> dict[str, Any]:
        """Return all that the next step depends on."""
        return {
            **self.weights(),
            "groups": copy.deepcopy(self.optimizer.state_dict()["param_groups"]),
            "schedule": copy.deepcopy(self.schedule.state_dict()),
            "python": random.getstate(),
            "numpy": [v.tolist() if isinstance(v, np.ndarray) else v for v in np.random.get_state(legacy=True)],
            "torch": torch.get_rng_state(),
        }

    def healthy(self) -> bool:
        """Return whether every number of model, optimizer and average is finite and below a million."""
        state = list(self.optimizer.state.values())
        tensors = [*self.model.state_dict().values(), *(v for s in state for v in s.values() if isinstance(v, Tensor))]
        tensors += [] if self.ema is None else self.averaged.state_dict().values()
        return all(bool(t.isfinite().all() and t.abs().max() < 1e6) for t in tensors)


def batches(count: int, seed: int = 7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(5, 4, generator=generator) for _ in range(count)]
