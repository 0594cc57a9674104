"""Which modules the gradient of a window comes from: told by every step, at no cost to the others."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.counting import DispatchCounter
from tests.rig import optimizer_for
from yolo_stable.guard import Decision, GuardConfig, GuardVerdict, StepGuard
from yolo_stable.guard.fused import FusedStep
from yolo_stable.guard.gradients import each_norm, kinds_of, total_norm
from yolo_stable.guard.shares import module_of, shares
from yolo_stable.guard.step import ReferenceStep

WAYS = ("reference", "host decides", "device decides")
GRADIENTS = {"0.weight": 3.0, "0.bias": 4.0, "1.weight": 12.0, "1.bias": 0.0}
"""Norm of each gradient: 5 of the first module, 12 of the second, 13 in all."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def step_of(way: str, model: nn.Module, optimizer: str = "SGD", scaler: Any = None, **settings: Any) -> ReferenceStep:
    known = GuardConfig(**settings)
    if way == "reference":
        return ReferenceStep(model, optimizer_for(optimizer, model), scaler, known)
    return FusedStep(model, optimizer_for(optimizer, model), scaler, known, on_device=way == "device decides")


def fill(model: nn.Module, factor: float = 1.0) -> None:
    """Give each parameter a gradient of known norm."""
    for name, parameter in model.named_parameters():
        parameter.grad = torch.zeros_like(parameter)
        parameter.grad.view(-1)[0] = factor * GRADIENTS[name]


def close(found: tuple[tuple[str, float], ...], expected: dict[str, float]) -> bool:
    return list(dict(found)) == list(expected) and list(dict(found).values()) == pytest.approx([*expected.values()])


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
@pytest.mark.parametrize("way", WAYS)
def test_every_step_tells_the_shares_of_the_modules_when_it_is_asked(way: str, optimizer: str) -> None:
    model = network()
    step = step_of(way, model, optimizer)
    step.measure = True
    fill(model)
    decision = step.run()
    assert decision.verdict is GuardVerdict.CLIP
    assert decision.norm == pytest.approx(13.0)
    assert close(decision.layers, {"1": 144 / 169, "0": 25 / 169})
    assert decision.scale is None
    step.measure = False
    fill(model)
    assert step.run().layers == ()


@pytest.mark.parametrize("way", WAYS)
def test_the_loss_scale_is_told_and_does_not_change_the_shares(way: str) -> None:
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    step = step_of(way, model, scaler=scaler)
    scaler.scale(torch.zeros(()))  # makes the scale
    step.measure = True
    fill(model, factor=256.0)
    decision = step.run()
    assert decision.norm == pytest.approx(13.0)
    assert decision.scale == 256.0
    assert close(decision.layers, {"1": 144 / 169, "0": 25 / 169})


@pytest.mark.parametrize("way", WAYS)
def test_a_window_that_is_not_applied_has_no_shares(way: str) -> None:
    model = network()
    step = step_of(way, model)
    step.measure = True
    assert step.run() == Decision(verdict=GuardVerdict.EMPTY, reason="every micro-batch of the window was rejected")
    fill(model)
    next(model.parameters()).grad.view(-1)[1] = math.nan  # type: ignore[union-attr]
    decision = step.run()
    assert decision.verdict is GuardVerdict.REJECT_WINDOW
    assert (decision.layers, decision.scale) == ((), None)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
@pytest.mark.parametrize("way", WAYS)
def test_to_ask_changes_no_bit(way: str, optimizer: str) -> None:
    models = [network(), network()]
    steps = [step_of(way, model, optimizer) for model in models]
    for number in range(5):
        for step, model in zip(steps, models, strict=True):
            step.measure = step is steps[0]
            for i, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(10 * number + i)
                parameter.grad = torch.randn(parameter.shape, generator=generator) * 10.0 ** (number - 2)
        first, second = (step.run() for step in steps)
        assert (first.norm, first.verdict) == (second.norm, second.verdict)
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_to_ask_costs_no_read_more(way: str) -> None:
    model = network()
    step = step_of(way, model)
    reads = []
    for measure in (False, False, True):
        fill(model)
        step.measure = measure
        with DispatchCounter() as counter:
            step.run()
        reads.append(counter.reads)
    assert reads == [1, 1, 1]


def test_gradients_of_several_kinds_keep_their_order() -> None:
    grads = [
        torch.full((2,), 3.0),
        torch.full((4,), 2.0, dtype=torch.float64),
        torch.ones(1),
        torch.full((1,), 7.0).half(),
    ]
    each: list[torch.Tensor] = []
    norm = total_norm(grads, kinds_of(grads), each)
    assert [float(n) for n in each] == pytest.approx([math.sqrt(18), 4.0, 1.0, 7.0])
    assert {n.dtype for n in each} == {norm.dtype}
    assert float(norm) == pytest.approx(math.sqrt(18 + 16 + 1 + 49))


def test_a_sparse_gradient_has_no_norm_by_itself() -> None:
    assert each_norm([torch.ones(2), torch.ones(2).to_sparse()]) == []


def test_what_only_the_optimizer_knows_has_no_share_as_it_is_not_clipped() -> None:
    model, extra = network(), nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": [extra]}], lr=0.1)
    step = ReferenceStep(model, optimizer, None, GuardConfig())
    step.measure = True
    fill(model)
    extra.grad = torch.tensor([13.0, 0.0])
    assert close(step.run().layers, {"1": 72 / 84.5, "0": 12.5 / 84.5})


def test_parameters_without_a_gradient_are_left_out() -> None:
    model = network()
    step = step_of("host decides", model)
    step.measure = True
    fill(model)
    next(model[0].parameters()).grad = None
    assert close(step.run().layers, {"1": 144 / 160, "0": 16 / 160})


def test_the_guard_passes_the_question_on() -> None:
    model = network()
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.01))
    for measure in (True, False):
        guard.backward(model(torch.ones(2, 3)).square().sum())
        decision = guard.step(measure=measure)
        assert bool(decision.layers) is measure
    assert guard.last == decision


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("module.model.0.conv.weight", "model.0.conv"),
        ("_orig_mod.model.0.bn.bias", "model.0.bn"),
        ("module._orig_mod.model.0.bn.bias", "model.0.bn"),
        ("model.2._orig_mod.cv1.conv.weight", "model.2.cv1.conv"),
        ("a.module.weight", "a.module"),
        ("scale", "the model itself"),
    ],
)
def test_names_are_those_of_the_model_that_nothing_wraps(name: str, module: str) -> None:
    assert module_of(name) == module


def test_the_module_of_a_wrapped_model_is_found_by_the_step() -> None:
    model = network()
    wrapped = copy.deepcopy(nn.Module())
    wrapped.add_module("module", model)
    step = step_of("reference", wrapped)
    step.measure = True
    fill(model)
    assert close(step.run().layers, {"1": 144 / 169, "0": 25 / 169})


def test_huge_norms_do_not_overflow_and_ruined_ones_share_nothing() -> None:
    assert close(shares(["a", "b"], [1e300, 1e300]), {"a": 0.5, "b": 0.5})
    assert shares(["a", "b"], [math.inf, 1.0]) == shares(["a"], [math.nan]) == shares([], []) == ()
