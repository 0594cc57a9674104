"""The next safer precision, by that of now and by the device."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from yolo_stable.trainer import precision
from yolo_stable.trainer.precision import BFLOAT16, FLOAT32, Precision, PrecisionPolicy, supports_bfloat16


def trainer_in(amp: bool, asked: Any, device: str = "cpu") -> Any:
    return SimpleNamespace(amp=amp, args=SimpleNamespace(amp=asked), device=torch.device(device))


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """Let each device have bfloat16, and return those that were asked."""
    asked: list[torch.device] = []
    monkeypatch.setattr(precision, "supports_bfloat16", lambda device: asked.append(device) or True)
    return asked


@pytest.mark.parametrize(
    ("amp", "asked", "following"),
    [
        (True, True, [BFLOAT16, FLOAT32]),
        (True, "bf16", [FLOAT32]),
        (False, True, []),  # Ultralytics' own check of AMP has turned it off
        (False, "bf16", []),
    ],
)
def test_where_bfloat16_is_native_it_comes_before_float32(
    amp: bool, asked: Any, following: list[Precision], native: list[torch.device]
) -> None:
    trainer = trainer_in(amp, asked)
    policy = PrecisionPolicy(trainer)
    for number, expected in enumerate(following):
        assert policy.available() == len(following) - number + 1
        assert policy.lower() == expected
        trainer.amp, trainer.args.amp = expected.amp, expected.argument
    assert policy.available() == 1
    assert policy.lower() is None
    assert policy.was_lowered == bool(following)


def test_elsewhere_float32_is_next() -> None:
    """The CPU of this machine is asked, not a stub."""
    policy = PrecisionPolicy(trainer_in(True, True))
    assert policy.available() == 2
    assert policy.lower() == Precision("float32", amp=False, argument=False)


def test_the_device_of_the_trainer_is_asked_at_each_time(native: list[torch.device]) -> None:
    trainer = trainer_in(True, True, "cuda:1")
    policy = PrecisionPolicy(trainer)
    policy.available()
    trainer.device = torch.device("cuda:3")
    policy.lower()
    assert native == [torch.device("cuda:1"), torch.device("cuda:3")]


def test_to_ask_how_many_there_are_lowers_nothing() -> None:
    policy = PrecisionPolicy(trainer_in(True, True))
    assert policy.available() == 2
    assert not policy.was_lowered
    policy.lower()
    assert policy.was_lowered


def test_what_ultralytics_is_told() -> None:
    assert (BFLOAT16.name, BFLOAT16.amp, BFLOAT16.argument) == ("bfloat16", True, "bf16")
    assert (FLOAT32.name, FLOAT32.amp, FLOAT32.argument) == ("float32", False, False)


@pytest.mark.parametrize("native_there", [True, False])
def test_only_a_gpu_that_has_it_natively_has_bfloat16(native_there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A T4 emulates it, and Ultralytics refuses that."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native_there
    )
    assert supports_bfloat16(torch.device("cuda")) is native_there
    assert not supports_bfloat16(torch.device("cpu"))
    assert not supports_bfloat16(torch.device("mps"))
