from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import Climb, GuardConfig, Rung
from yolo_stable.guard.ladder import LEAST, REFILL, Brake, most_micro_batches, next_rung


@pytest.mark.parametrize(
    ("rollbacks", "has_snapshot", "can_lower", "rung"),
    [
        (0, True, False, Rung.ROLL_BACK),
        (0, True, True, Rung.ROLL_BACK),
        (2, True, True, Rung.ROLL_BACK),
        (3, True, True, Rung.LOWER_PRECISION),
        (3, True, False, Rung.HALT),
        (4, True, False, Rung.HALT),
        (0, False, True, Rung.HALT),
        (3, False, True, Rung.HALT),
    ],
)
def test_each_rung_has_its_turn(rollbacks: int, has_snapshot: bool, can_lower: bool, rung: Rung) -> None:
    config = GuardConfig(max_rollbacks=3)
    assert next_rung(rollbacks, config, has_snapshot=has_snapshot, can_lower=can_lower) is rung


def test_the_most_micro_batches_are_those_of_the_slowest_fault() -> None:
    config = GuardConfig(max_rollbacks=2, max_consecutive=4, snapshot_every=3, patience=2)
    assert most_micro_batches(config, 1) == 20  # two rollbacks, one in doubt and the halt, each after five rejections
    assert most_micro_batches(config, 3) == 40
    assert most_micro_batches(config, 1, accumulate=4) == 80
    assert most_micro_batches(GuardConfig(max_rollbacks=2, max_consecutive=4, snapshot_every=16, patience=2), 1) == 64
    assert most_micro_batches(GuardConfig(max_rollbacks=2, max_consecutive=4, patience=32), 1) == 128


def test_a_climb_is_plain() -> None:
    climb = Climb(rung=Rung.ROLL_BACK, reason="r", step=20, to_step=16, lost=4)
    assert (climb.lost, climb.rung.value) == (4, "roll_back")
    assert Climb(rung=Rung.REPAIR, reason="r").lost == 0


# ---- the brake ------------------------------------------------------------------------------------------------------------


def applied(brake: Brake, steps: int) -> list[float]:
    factors = []
    for _ in range(steps):
        brake.applied()
        factors.append(brake.factor)
    return factors


def test_a_rollback_halves_and_the_factor_ramps_back_to_exactly_one() -> None:
    brake = Brake(4)
    brake.rolled_back()
    assert brake.factor == 0.5
    assert applied(brake, 6) == [0.625, 0.75, 0.875, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("ramp_steps", [1, 3, 7, 100, 333])
def test_whatever_the_ramp_it_ends_at_exactly_one(ramp_steps: int) -> None:
    brake = Brake(ramp_steps)
    for _ in range(2):
        brake.rolled_back()
    factors = applied(brake, ramp_steps)
    assert factors == sorted(factors)
    assert factors[-1] == 1.0
    assert all(factor < 1.0 for factor in factors[:-1])


def test_without_a_rollback_the_factor_is_exactly_one() -> None:
    brake = Brake(3)
    assert set(applied(brake, 100)) == {1.0}


def test_rollbacks_one_after_the_other_halve_again_and_again_but_never_to_nothing() -> None:
    brake = Brake(4)
    factors = []
    for _ in range(100):
        brake.rolled_back()
        factors.append(brake.factor)
    assert factors[:4] == [0.5, 0.25, 0.125, 0.0625]
    assert factors[-1] == LEAST
    assert applied(brake, 4)[-1] == 1.0  # no step was taken in between: it is not the learning rate


def test_diverging_again_on_the_way_back_sets_a_ceiling() -> None:
    brake = Brake(4)
    brake.rolled_back()
    assert applied(brake, 2)[-1] == 0.75
    brake.rolled_back()
    assert (brake.factor, brake.ceiling) == (0.375, 0.375)
    assert applied(brake, 100)[-1] == 0.375
    brake.rolled_back()  # long after: an incident of its own
    assert brake.ceiling == 0.375
    assert applied(brake, 4)[-1] == 0.375


def test_the_budget_is_full_again_after_a_calm() -> None:
    brake = Brake(3)
    for _ in range(5):
        brake.rolled_back()
    applied(brake, REFILL * 3 - 1)
    assert brake.rollbacks == 5
    applied(brake, 1)
    assert brake.rollbacks == 0
    applied(brake, 1000)
    assert brake.calm == REFILL * 3


def braked(factor: float) -> Brake:
    return Brake(10, factor=factor)


def rates(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [group["lr"] for group in optimizer.param_groups]


def two_groups() -> torch.optim.SGD:
    a, b = nn.Linear(1, 1), nn.Linear(1, 1)
    return torch.optim.SGD([{"params": a.parameters(), "lr": 0.3}, {"params": b.parameters(), "lr": 0.7}])


def test_the_learning_rates_are_lowered_for_the_step_and_exactly_restored() -> None:
    optimizer = two_groups()
    with braked(1 / 3).on(optimizer):
        assert rates(optimizer) == [0.3 * (1 / 3), 0.7 * (1 / 3)]
    assert rates(optimizer) == [0.3, 0.7]


def test_they_are_restored_when_the_step_raises() -> None:
    optimizer = two_groups()
    seen: list[float] = []

    def step() -> None:
        with braked(0.5).on(optimizer):
            seen.extend(rates(optimizer))
            raise MemoryError

    with pytest.raises(MemoryError):
        step()
    assert seen == [0.15, 0.35]
    assert rates(optimizer) == [0.3, 0.7]


def test_without_a_brake_they_are_not_touched() -> None:
    optimizer = two_groups()
    with braked(1.0).on(optimizer):
        optimizer.param_groups[0]["lr"] = 5.0  # somebody else's business
    assert rates(optimizer) == [5.0, 0.7]


def test_a_learning_rate_that_is_a_tensor_is_itself_again() -> None:
    rate = torch.tensor(0.5)
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    with braked(0.5).on(optimizer):
        assert float(optimizer.param_groups[0]["lr"]) == 0.25
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate == 0.5


def test_an_optimizer_without_a_learning_rate_is_let_be() -> None:
    optimizer = two_groups()
    del optimizer.param_groups[0]["lr"]
    with braked(0.5).on(optimizer):
        assert "lr" not in optimizer.param_groups[0]
        assert optimizer.param_groups[1]["lr"] == 0.35
    assert optimizer.param_groups[1]["lr"] == 0.7


def test_the_brake_comes_back_with_the_ramp_of_the_settings() -> None:
    brake = Brake(4)
    brake.rolled_back()
    applied(brake, 2)
    other = Brake(8)
    other.load(brake.to_dict())
    assert other.to_dict() == {**brake.to_dict(), "ramp_steps": 8}


def test_the_brake_of_an_earlier_run_is_taken() -> None:
    saved = {"ramp_steps": 100, "factor": 0.25, "start": 0.25, "ceiling": 1.0, "calm": 3, "rollbacks": 2}
    brake = Brake(100)
    brake.load(saved)
    assert brake.to_dict() == saved


FINE = Brake(4).to_dict()


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
def test_a_damaged_brake_is_refused_and_nothing_is_changed(values: Any) -> None:
    brake = Brake(4)
    brake.rolled_back()
    before = brake.to_dict()
    with pytest.raises(InvalidCallError, match=r"^This is not the state of a StepGuard: brake="):
        brake.load(values)
    assert brake.to_dict() == before
