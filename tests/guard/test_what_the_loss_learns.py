"""A loss that learns and remembers, in a guarded loop: steps stay, what a bad batch did goes, and a replay leaves nothing."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from yolo_stable.guard import StepGuard

NAN = math.nan


class Loss(nn.Module):
    """Weighs its terms by a number that is learned, counts its calls, and keeps a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls, self.mean = 0, 1.0

    def forward(self, y: Tensor) -> Tensor:
        self.calls += 1
        loss = (y - 1.0).square().mean()
        self.mean = 0.9 * self.mean + 0.1 * loss.item()
        return loss * torch.exp(-self.weight).sum() + self.weight.sum()


class Run:
    """A linear model with such a loss.

    Args:
        step: ``guard.step``.
        on_model: Whether the loss is the model's ``criterion``, or given to the guard beside it.
        **settings: Those of the guard.
    """

    def __init__(self, step: str = "auto", *, on_model: bool = True, asked: bool = False, **settings: float) -> None:
        torch.manual_seed(0)
        self.model, self.loss, self.x = nn.Linear(3, 1), Loss(), torch.ones(4, 3)
        if on_model:
            self.model.criterion = self.loss
        parameters = [*self.model.parameters()] if on_model else [*self.model.parameters(), *self.loss.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
        beside = {} if on_model else {"loss": self.loss}
        again = (lambda: self.loss(self.model(self.x))) if asked else None
        options = {"snapshot_every": 4, **settings}
        self.guard = StepGuard(self.model, self.optimizer, memory=beside, again=again, step=step, **options)

    def train(self, x: Tensor) -> None:
        self.x = x
        self.guard.before_forward()
        self.guard.backward(self.loss(self.model(x)))
        self.guard.step()
        self.guard.settle()


@pytest.mark.parametrize("on_model", [True, False], ids=["criterion", "beside"])
@pytest.mark.parametrize("step", ["fused", "reference"])
def test_a_rejected_batch_undoes_no_step_of_what_the_loss_learns(step: str, on_model: bool) -> None:
    run = Run(step, on_model=on_model)
    for _ in range(3):
        run.train(torch.randn(4, 3))
    weight, mean, calls = run.loss.weight.item(), run.loss.mean, run.loss.calls
    assert weight != 0.0
    run.train(torch.full((4, 3), NAN))
    assert run.guard.counts.rejected_micro_batches == 1
    assert (run.loss.weight.item(), run.loss.mean, run.loss.calls) == (weight, mean, calls)


@pytest.mark.parametrize("on_model", [True, False], ids=["criterion", "beside"])
def test_batches_that_are_run_again_leave_nothing_in_it(on_model: bool) -> None:
    asked, unasked = (
        Run("reference", on_model=on_model, asked=a, max_loss_rise=4.0, patience=20) for a in (True, False)
    )
    for run in (asked, unasked):
        torch.manual_seed(1)
        for number in range(40):
            run.train(torch.randn(4, 3) * (300.0 if number == 30 else 1.0))
    assert asked.guard.recovery is not None
    assert asked.guard.recovery.evidence.older is None or asked.guard.counts.rollbacks == 0
    assert (asked.loss.calls, asked.loss.mean) == (unasked.loss.calls, unasked.loss.mean)
    assert torch.equal(asked.loss.weight, unasked.loss.weight)
    before = asked.loss.weight.item()
    asked.train(torch.full((4, 3), NAN))
    assert asked.guard.counts.rejected_micro_batches == 1
    assert asked.loss.weight.item() == before


def test_memory_that_ran_out_lets_go_of_the_older_state() -> None:
    run = Run("reference", asked=True, max_loss_rise=4.0, patience=20)
    torch.manual_seed(1)
    for number in range(40):
        run.train(torch.randn(4, 3) * (300.0 if number == 30 else 1.0))
    recovery = run.guard.recovery
    assert recovery is not None
    assert recovery.evidence.older is not None, "it was asked"
    recovery.out_of_memory()
    assert recovery.evidence.older is None
