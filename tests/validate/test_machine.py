"""Which device is meant, with no such device here: the facts of the build are patched."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import machine as machines
from yolo_stable.validate.check import CheckCase
from yolo_stable.validate.checks.env import CHECKS
from yolo_stable.validate.hashed import HashedDraw
from yolo_stable.validate.operations.env import environment
from yolo_stable.validate.simulated import machine_for


def test_no_name_means_the_best_device_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machines.probe().backend.name == "cpu"
    monkeypatch.setattr(machines, "is_available", lambda _, backend: backend.name in ("rocm", "cpu"))
    assert (machines.probe().backend.name, machines.probe().device.type) == ("rocm", "cuda")


def test_a_device_that_is_not_there_is_named_with_what_torch_was_built_for() -> None:
    with pytest.raises(InvalidCallError, match=r"'rocm:1' is not there: torch .* \(cuda .*, hip None\)"):
        machines.probe("rocm:1")


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("gpu", "There is no kind of device called 'gpu'. Use one of cuda, rocm, mps, xpu, cpu."),
        ("cuda:x", "There is no kind of device called 'cuda:x'"),
        ("cpu:1", "The device 'cpu:1' is not there: there is one cpu only. Try --device cpu."),
        ("mps", "The device 'mps' is not there: torch "),
        ("0", "The device '0' is not there: torch "),
    ],
)
def test_a_name_that_cannot_be_meant_is_one_clear_line(device: str, words: str) -> None:
    with pytest.raises(InvalidCallError) as caught:
        machines.probe(device)
    assert str(caught.value).startswith(words)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "backend"), [("cuda", "rocm"), ("rocm:1", "rocm"), ("1", "rocm"), ("xpu", "xpu"), ("mps", "mps")]
)
def test_a_device_that_is_there_is_taken_and_asked_to_add(
    kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build for ROCm whose sums go wrong: the name cuda means the AMD card, and what cannot add is not asked any more."""
    monkeypatch.setattr(torch.version, "hip", "7.0")
    monkeypatch.setattr(machines, "is_available", lambda _, found: found.name == backend)
    sums = iter([4.0, 5.0])
    monkeypatch.setattr(torch, "ones", lambda n, device: _Sum(next(sums)))
    assert machines.probe(kind).backend.name == backend
    with pytest.raises(InvalidCallError, match=r"says that 2 \+ 2 is 5.0"):
        machines.probe(kind)


class _Sum:
    """What torch gives for a sum on a card that is not here."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __add__(self, other: float) -> _Sum:
        return self

    def sum(self) -> float:
        return self.value


def test_a_card_that_answers_with_an_error_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "is_available", lambda *_: True)
    with pytest.raises(InvalidCallError, match=r"The device 'xpu' cannot be used: ") as caught:
        machines.probe("xpu")
    assert "\n" not in str(caught.value)


def test_a_card_of_another_kind_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_for("simulated-rocm", None)
    monkeypatch.setenv("HSA_OVERRIDE_GFX_VERSION", "10.3.0")
    evidence = environment(machine, CheckCase(check=CHECKS[0], layout="contiguous", precision="exact"), HashedDraw("x"))
    assert ["HSA_OVERRIDE_GFX_VERSION=10.3.0" in warning for warning in evidence.warnings] == [True]


def test_strict_switches_are_put_back() -> None:
    machine = machines.probe("cpu")
    before = machine.environment()["switches"]
    with machine.computing():
        assert machines.snapshot()["cudnn.conv.fp32_precision"] == "ieee"
    assert machine.environment()["switches"] == before
    assert torch.backends.cudnn.enabled
