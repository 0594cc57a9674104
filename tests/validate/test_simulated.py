"""A device that claims to be of a kind, with a fault that a setting may take away."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import BACKENDS, find_fault
from yolo_stable.validate.simulated import SimulatedDevice, machine_for


@pytest.mark.parametrize("kind", list(BACKENDS))
def test_it_has_the_settings_and_the_name_of_what_it_claims_to_be(kind: str) -> None:
    machine = machine_for(f"simulated-{kind}", None)
    assert (machine.backend, machine.device.type) == (BACKENDS[kind], "cpu")
    assert machine.name.endswith(f"(simulated {kind})")


def test_a_fault_fires_within_only_and_is_counted() -> None:
    machine = SimulatedDevice(BACKENDS["cpu"], find_fault("sigmoid-bit"))
    x = torch.linspace(-1, 1, 50)
    right = x.sigmoid()
    with machine.computing():
        assert int((x.sigmoid() != right).sum()) == 1
    assert (machine.fired, torch.equal(x.sigmoid(), right)) == (1, True)


def test_a_setting_takes_the_fault_away(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_for("simulated-rocm", "sigmoid-bit@MIOPEN_DEBUG_CONV_FFT=0")
    x = torch.linspace(-1, 1, 50)
    with machine.computing():
        wrong = x.sigmoid()
    monkeypatch.setenv("MIOPEN_DEBUG_CONV_FFT", "0")
    with machine.computing():
        assert not torch.equal(x.sigmoid(), wrong)


def test_a_kind_that_there_is_not_is_told() -> None:
    with pytest.raises(InvalidCallError, match="no kind of device called 'simulated-tpu'"):
        machine_for("simulated-tpu", None)
