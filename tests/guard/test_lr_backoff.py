from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard.lr_backoff import LEAST, REFILL, LearningRateBackoff


def applied(backoff: LearningRateBackoff, steps: int) -> list[float]:
    factors = []
    for _ in range(steps):
        backoff.applied()
        factors.append(backoff.factor)
    return factors


def test_a_rollback_halves_and_the_factor_ramps_back_to_exactly_one() -> None:
    backoff = LearningRateBackoff(4)
    backoff.rolled_back()
    assert backoff.factor == 0.5
    assert applied(backoff, 6) == [0.625, 0.75, 0.875, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("ramp_steps", [1, 3, 7, 100, 333])
def test_whatever_the_ramp_it_ends_at_exactly_one(ramp_steps: int) -> None:
    backoff = LearningRateBackoff(ramp_steps)
    for _ in range(2):
        backoff.rolled_back()
    factors = applied(backoff, ramp_steps)
    assert factors == sorted(factors)
    assert factors[-1] == 1.0
    assert all(factor < 1.0 for factor in factors[:-1])


def test_without_a_rollback_the_factor_is_exactly_one() -> None:
    backoff = LearningRateBackoff(3)
    assert set(applied(backoff, 100)) == {1.0}


def test_rollbacks_one_after_the_other_halve_again_and_again_but_never_to_nothing() -> None:
    backoff = LearningRateBackoff(4)
    factors = []
    for _ in range(100):
        backoff.rolled_back()
        factors.append(backoff.factor)
    assert factors[:4] == [0.5, 0.25, 0.125, 0.0625]
    assert factors[-1] == LEAST
    assert applied(backoff, 4)[-1] == 1.0  # no step was taken in between: it is not the learning rate


def test_diverging_again_on_the_way_back_sets_a_ceiling() -> None:
    backoff = LearningRateBackoff(4)
    backoff.rolled_back()
    assert applied(backoff, 2)[-1] == 0.75
    backoff.rolled_back()
    assert (backoff.factor, backoff.ceiling) == (0.375, 0.375)
    assert applied(backoff, 100)[-1] == 0.375
    backoff.rolled_back()  # long after: an incident of its own
    assert backoff.ceiling == 0.375
    assert applied(backoff, 4)[-1] == 0.375


def test_the_budget_is_full_again_after_a_calm() -> None:
    backoff = LearningRateBackoff(3)
    for _ in range(5):
        backoff.rolled_back()
    applied(backoff, REFILL * 3 - 1)
    assert backoff.rollbacks == 5
    applied(backoff, 1)
    assert backoff.rollbacks == 0
    applied(backoff, 1000)
    assert backoff.calm == REFILL * 3


def backed_off(factor: float) -> LearningRateBackoff:
    return LearningRateBackoff(10, factor=factor)


def rates(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [group["lr"] for group in optimizer.param_groups]


def two_groups() -> torch.optim.SGD:
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    return torch.optim.SGD([{"params": a.parameters(), "lr": 0.3}, {"params": b.parameters(), "lr": 0.7}])


def test_the_learning_rates_are_lowered_for_the_step_and_exactly_restored() -> None:
    optimizer = two_groups()
    with backed_off(1 / 3).on(optimizer):
        assert rates(optimizer) == [0.3 * (1 / 3), 0.7 * (1 / 3)]
    assert rates(optimizer) == [0.3, 0.7]


def test_they_are_restored_when_the_step_raises() -> None:
    optimizer = two_groups()
    seen: list[float] = []

    def step() -> None:
        with backed_off(0.5).on(optimizer):
            seen.extend(rates(optimizer))
            raise MemoryError

    with pytest.raises(MemoryError):
        step()
    assert seen == [0.15, 0.35]
    assert rates(optimizer) == [0.3, 0.7]


def test_without_a_backoff_they_are_not_touched() -> None:
    optimizer = two_groups()
    with backed_off(1.0).on(optimizer):
        optimizer.param_groups[0]["lr"] = 5.0  # somebody else's business
    assert rates(optimizer) == [5.0, 0.7]


def test_a_learning_rate_that_is_a_tensor_is_itself_again() -> None:
    rate = torch.tensor(0.5)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with backed_off(0.5).on(optimizer):
        assert float(optimizer.param_groups[0]["lr"]) == 0.25
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.5


def test_an_optimizer_without_a_learning_rate_is_let_be() -> None:
    optimizer = two_groups()
    del optimizer.param_groups[0]["lr"]
    with backed_off(0.5).on(optimizer):
        assert "lr" not in optimizer.param_groups[0]
        assert optimizer.param_groups[1]["lr"] == 0.35
    assert optimizer.param_groups[1]["lr"] == 0.7


def test_the_backoff_comes_back_with_the_ramp_of_the_settings() -> None:
    backoff = LearningRateBackoff(4)
    backoff.rolled_back()
    applied(backoff, 2)
    other = LearningRateBackoff(8)
    other.load(backoff.to_dict())
    assert other.to_dict() == {**backoff.to_dict(), "ramp_steps": 8}


def test_the_backoff_of_an_earlier_run_is_taken() -> None:
    saved = {"ramp_steps": 100, "factor": 0.25, "start": 0.25, "ceiling": 1.0, "calm": 3, "rollbacks": 2}
    backoff = LearningRateBackoff(100)
    backoff.load(saved)
    assert backoff.to_dict() == saved


FINE = LearningRateBackoff(4).to_dict()


@pytest.mark.parametrize(
    "values",
    [
        None,
        {},
        {**FINE, "more": 1},
        {key: value for key, value in FINE.items() if key != "calm"},
        *({**FINE, "factor": wrong} for wrong in (0.0, -1.0, 1.5, float("nan"), "1", None, True)),
        *({**FINE, "calm": wrong} for wrong in (-1, 1.0, None, True)),
    ],
    ids=repr,
)
def test_a_damaged_backoff_is_refused_and_nothing_is_changed(values: Any) -> None:
    backoff = LearningRateBackoff(4)
    backoff.rolled_back()
    before = backoff.to_dict()
    with pytest.raises(InvalidCallError, match=r"^This is not the state of a StepGuard: brake="):
        backoff.load(values)
    assert backoff.to_dict() == before
