"""The warning of a device that nobody has validated, or that has failed, before a training."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from validations import CONV, failing, validation

from yolo_stable.data.builtin import CACHE_VARIABLE
from yolo_stable.train.device_gate import warn_of_device
from yolo_stable.validate import BACKENDS, Status
from yolo_stable.validate.healing import Healing
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.verdict_cache import DeviceIdentity, DeviceVerdict, recall, remember

WINOGRAD = next(s for s in BACKENDS["rocm"].heals if s.name == "MIOPEN_DEBUG_CONV_WINOGRAD=0")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))


@pytest.fixture
def rocm(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let torch say that it was built for ROCm and finds a card; returns the lines of warning."""
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Radeon of 2031")
    facts = SimpleNamespace(gcnArchName="gfx1100", total_memory=1, uuid="GPU-1")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["gfx1100"])
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 1)
    return []


@pytest.mark.parametrize("device", [None, 0, "0", "cuda", "cuda:0", -1])
def test_an_accelerator_that_was_never_validated_is_warned_of_once(rocm: list[str], device: Any) -> None:
    for _ in range(3):
        warn_of_device(device, rocm.append)
    (line,) = rocm
    assert line.startswith("cuda:0 (Radeon of 2031, torch ")
    assert line.partition("\n")[0].endswith(" was never validated.")
    assert line.endswith("\nyolo-stable validate --quick --device cuda:0")


def test_one_that_passed_is_not_warned_of_and_one_that_failed_is_each_time(rocm: list[str]) -> None:
    machine = Machine(BACKENDS["rocm"], "cuda:0")
    identity = DeviceIdentity.of("rocm", "cuda:0", machine.name, machine.environment())
    remember(identity, DeviceVerdict.of(validation()))
    warn_of_device(0, rocm.append)
    assert rocm == []
    remember(
        identity,
        DeviceVerdict.of(validation(failing()), Healing(chosen=(WINOGRAD,), heals={CONV: WINOGRAD}, failing=1)),
    )
    for _ in range(2):
        warn_of_device(0, rocm.append)
    assert len(rocm) == 2
    assert f"failed 1 of 1 check ({CONV}) when it was validated (2031-01-02); validate=heal trains" in rocm[0]


@pytest.mark.parametrize("device", [None, "cpu", "mps", "xpu", 0])
def test_the_cpu_is_never_warned_of_nor_what_is_not_there(device: Any) -> None:
    lines: list[str] = []
    warn_of_device(device, lines.append)
    assert lines == []


def test_a_kept_verdict_is_what_the_verb_keeps_for_the_same_device(rocm: list[str]) -> None:
    """The worker that validates and the process that trains must mean the same file."""
    machine = Machine(BACKENDS["rocm"], "cuda:0")
    remember(DeviceIdentity.of("rocm", "cuda", machine.name, machine.environment()), DeviceVerdict.of(validation()))
    warn_of_device("0", rocm.append)
    assert rocm == []
    found = recall(DeviceIdentity.of("rocm", "cuda:0", machine.name, machine.environment()))
    assert found is not None
    assert found.status is Status.PASS
