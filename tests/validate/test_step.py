"""One training step in bfloat16: honest rounding passes, and a gradient in the wrong direction does not."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from yolo_stable.validate import Status
from yolo_stable.validate.backend import BACKENDS
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.operations import step
from yolo_stable.validate.precision import switched
from yolo_stable.validate.result import CheckResult

CASE = "step/yolo11n/contiguous/bfloat16"
UNLUCKY = 15
"""Inputs for which the head's gradient, computed without oneDNN, has a cosine of 0.43 with that in float64; most have 0.9."""


@pytest.fixture(scope="module")
def executor() -> Executor:
    return Executor(Machine(BACKENDS["cpu"]), UNLUCKY)


def taken(executor: Executor) -> CheckResult:
    with switched({"mkldnn.enabled": False}):
        return executor.run(find_case(CASE))


def test_rounding_that_a_fresh_network_amplifies_is_no_fault(executor: Executor) -> None:
    result = taken(executor)
    assert result.status is Status.PASS, result.reason
    assert result.numbers["head_cosine"] < 0.6


def test_a_head_whose_gradient_lost_its_sign_is_one(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    def turned(model: nn.Module) -> dict[str, Tensor]:
        found = real(model)
        heads = [name for name in found if name.startswith("model.23.")]
        assert heads
        return {**found, **{name: -found[name] for name in heads}}

    real = step.gradients_of
    monkeypatch.setattr(step, "gradients_of", turned)
    result = taken(executor)
    assert result.status is Status.FAIL
    assert "cosine of the head's gradient" in result.reason
