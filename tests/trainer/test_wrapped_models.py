"""Trainings in which Ultralytics wraps or changes the network: distillation, quantization-aware, and compiled."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import ultralytics.engine.trainer as stock
from torch import Tensor, nn
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import DetectionModel, load_checkpoint

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import NAN, Fault
from yolo_stable.incidents.replay import run as autopsy
from yolo_stable.runlog.reader import read_events

pytestmark = pytest.mark.usefixtures("without_final_evaluation")
Arguments = Callable[..., dict[str, Any]]


@pytest.fixture
def small(arguments: Arguments, shapes: Any) -> Arguments:
    """Return a maker of overrides: two epochs of two batches."""
    return lambda **changes: arguments(imgsz=32, data=shapes("detect", train=8, val=4), **changes)


def train(overrides: dict[str, Any], at: int = 1) -> tuple[Any, dict[str, Any], str]:
    """Return the trainer of a run with a NaN pixel in a batch, the answer about it, and that of a replay from its bundle."""
    trainer: Any = Fault("pixel", NAN, at=(at,)).on(StableDetectionTrainer)(overrides=overrides)
    trainer.train()
    counts = trainer.guard.counts
    assert (counts.micro_batches, counts.rejected_micro_batches, counts.applied) == (4, 1, 3)
    assert all(bool(v.isfinite().all()) for v in trainer.ema.ema.state_dict().values())
    (answer,) = [event for event in read_events(trainer.save_dir / "guard.jsonl") if event["event"] == "incident"]
    assert (answer["cause"], answer["phase"], answer["reproduced"], answer["bitwise"]) == ("data", "data", True, True)
    assert Path(answer["samples"][0]["path"]).is_file()
    return trainer, answer, autopsy(Path(answer["folder"]))


def test_a_distillation_is_guarded_and_leaves_its_teacher_alone(
    small: Arguments, narrow: Any, tmp_path: Path, said: list[str]
) -> None:
    teacher = DetectionModel(narrow("detect"), ch=3, nc=4, verbose=False)
    torch.save({"model": teacher, "train_args": {}}, tmp_path / "teacher.pt")
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    trainer, answer, again = train(small(distill_model=str(tmp_path / "teacher.pt")))
    assert isinstance(trainer.model, DistillationModel)
    assert "dis_loss" in trainer.loss_items
    after = trainer.model.teacher_model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert answer["module"].startswith("teacher_model.model.0")
    assert "It cannot be replayed: this is the answer from the run." in again
    assert any("DistillationModel cannot be built from an incident" in line for line in said)
    assert load_checkpoint(trainer.last)[0] is not None


def test_a_compiled_training_is_guarded(small: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapper is torch's, without its compiler, which would need minutes: what it changes is how the loop calls the loss."""
    monkeypatch.setattr(stock, "attempt_compile", lambda model, device, mode: torch.compile(model, backend="eager"))
    with torch.compiler.set_stance("force_eager"):
        trainer, answer, again = train(small(compile=True))
    assert type(trainer.model).__name__ == "OptimizedModule"
    assert answer["module"].startswith("model.0")
    assert "replay     bit for bit" in again


class TensorQuantizer(nn.Module):
    """Rounds to 8 bits, and passes gradients on."""

    def forward(self, x: Tensor) -> Tensor:
        step = x.detach().abs().max() / 127 + 1e-12
        return x + ((x / step).round() * step - x).detach()


class DynamicModule:
    """A class that stands in the place of a layer's own for a time."""


class QuantConv2d(DynamicModule, nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight_quantizer(self.weight), self.bias)

    def export(self) -> None:
        del self.weight_quantizer
        self.__class__ = nn.Conv2d


def quantize(model: nn.Module, config: Any, forward_loop: Callable[[nn.Module], None]) -> nn.Module:
    for module in list(model.modules()):
        if type(module) is nn.Conv2d:
            module.__class__ = QuantConv2d
            module.weight_quantizer = TensorQuantizer()
    forward_loop(model)
    return model


@pytest.fixture
def modelopt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for NVIDIA's ModelOpt, as far as Ultralytics calls it."""
    contents: dict[str, dict[str, Any]] = {
        "modelopt": {},
        "modelopt.torch": {},
        "modelopt.torch.quantization": {
            "quantize": quantize,
            "INT8_DEFAULT_CFG": {},
            "disable_quantizer": lambda model, which: None,
        },
        "modelopt.torch.opt": {
            "modelopt_state": lambda model: {},
            "restore_from_modelopt_state": lambda model, state: quantize(model, None, lambda m: None),
        },
        "modelopt.torch.opt.conversion": {"ModeloptStateManager": type("M", (), {"remove_state": lambda model: None})},
        "modelopt.torch.opt.dynamic": {"DynamicModule": DynamicModule},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    for name in contents:
        parent, _, child = name.rpartition(".")
        if parent:
            monkeypatch.setattr(sys.modules[parent], child, sys.modules[name], raising=False)


@pytest.mark.usefixtures("modelopt")
def test_a_quantization_aware_training_is_guarded(small: Arguments, said: list[str]) -> None:
    """Two batches calibrate the network before there is a guard; checkpoints hold its plain layers."""
    trainer, answer, again = train(small(quantize=8), at=3)
    assert any(isinstance(module, QuantConv2d) for module in trainer.model.modules())
    assert answer["module"].startswith("model.0")
    assert "It cannot be replayed: this is the answer from the run." in again
    assert any("it was changed afterwards" in line for line in said)
    saved = torch.load(trainer.last, weights_only=False)
    assert saved["modelopt"] is not None
    assert not any(isinstance(module, (QuantConv2d, TensorQuantizer)) for module in saved["ema"].modules())
