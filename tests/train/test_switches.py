"""Switches of torch that heal are in force while ``yolo-stable train validate=heal`` trains."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from validations import CONV, failing, validation

from yolo_stable.cli import main as cli
from yolo_stable.data.builtin import CACHE_VARIABLE
from yolo_stable.errors import YoloStableError
from yolo_stable.train import device_gate as train_validation
from yolo_stable.train.device_gate import set_switches
from yolo_stable.trainer.trainers import StableDetectionTrainer
from yolo_stable.validate import BACKENDS, HealSetting
from yolo_stable.validate.healing import Healing
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.precision import read
from yolo_stable.validate.verdict_cache import DeviceIdentity, DeviceVerdict, remember


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


def test_switches_are_set_in_this_process() -> None:
    try:
        set_switches({"cudnn.enabled": False})
        assert torch.backends.cudnn.enabled is False
    finally:
        torch.backends.cudnn.enabled = True
    with pytest.raises(YoloStableError, match=r"torch.backends.nope.enabled cannot be set to True here"):
        set_switches({"nope.enabled": True})


@pytest.mark.parametrize("wish", ["quick", "heal"])
def test_a_training_runs_under_the_switch_that_heals(
    wish: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    narrow: Callable[[str], str],
    shapes: Callable[..., str],
) -> None:
    """The verdicts are kept ones; all else is real."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    data, model = shapes(), narrow("detect")
    cpu = Machine(BACKENDS["cpu"])
    identity = DeviceIdentity.of("cpu", "cpu", cpu.name, cpu.environment())
    off = HealSetting(name="mkldnn.enabled=False", flags={"mkldnn.enabled": False})
    remember(identity, DeviceVerdict.of(validation(failing()), Healing(chosen=(off,), heals={CONV: off}, failing=1)))
    remember(identity.under({}, off.flags), DeviceVerdict.of(validation()))
    monkeypatch.setattr(train_validation, "_found", lambda device: (device, identity))
    seen: list[Any] = []
    original = StableDetectionTrainer.preprocess_batch

    def preprocess_batch(self: StableDetectionTrainer, batch: dict[str, Any]) -> dict[str, Any]:
        seen.append((read("mkldnn.enabled"), hasattr(self.args, "validate")))
        return original(self, batch)

    monkeypatch.setattr(StableDetectionTrainer, "preprocess_batch", preprocess_batch)
    words = ["train", data, f"model={model}", "epochs=1", "imgsz=64", "batch=8", "device=cpu", "plots=False", "workers=0",
             "val=False", f"project={tmp_path / 'runs'}", f"validate={wish}"]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["yolo-stable", *words])
    try:
        with pytest.raises(SystemExit) as end:
            cli.main()
    finally:
        set_switches({"mkldnn.enabled": True})
    printed = capsys.readouterr()
    if wish == "heal":
        assert end.value.code == 0, printed.err
        assert seen == [(False, False)] * 2
        assert "Healed: this training runs with torch.backends.mkldnn.set_flags(False)," in printed.out
    else:
        assert (end.value.code, seen) == (1, [])
        assert not (tmp_path / "runs").exists()
