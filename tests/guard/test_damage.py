"""A ruined state is looked at closely before it is put back."""

from __future__ import annotations

import math

import pytest
import torch

from yolo_stable.guard import Escalation, StepGuard
from yolo_stable.guard.damage import all_over, damages, lone_numbers

NAN = math.nan


def state() -> dict[str, torch.Tensor]:
    return {"a": torch.ones(2, 3), "b": torch.ones(4), "n": torch.tensor(3), "c": torch.ones(2)}


def test_the_first_bad_element_is_named_with_what_it_was() -> None:
    before, live = state(), state()
    before["a"][1, 2] = 0.25
    live["a"][1, 2] = NAN
    (found,) = damages(live, ["a"], before)
    assert (found.name, found.index, found.before, found.bad, found.elements) == ("a", (1, 2), 0.25, 1, 6)
    assert math.isnan(found.value)
    assert found.neighbours == ("b",), "nothing is in front of it"


def test_a_huge_number_counts_as_well() -> None:
    live = state()
    live["b"][3] = -1e20
    (found,) = damages(live, ["b"], state())
    assert (found.index, found.value, found.before, found.bad) == ((3,), float(torch.tensor(-1e20)), 1.0, 1)
    assert found.neighbours == ("a", "c"), "whole numbers are no neighbours"


def test_bad_neighbours_are_not_called_healthy_and_unknown_names_are_passed_over() -> None:
    live = state()
    live["a"][0, 0] = live["b"][0] = math.inf
    first, second = damages(live, ["b", "a", "and 3 more"], None)
    assert (first.name, first.neighbours, first.before) == ("a", (), None)
    assert (second.name, second.neighbours) == ("b", ("c",))


def test_a_scalar_and_a_snapshot_of_another_shape() -> None:
    (found,) = damages({"s": torch.tensor(NAN)}, ["s"], {"s": torch.ones(2)})
    assert (found.index, found.before, found.bad, found.elements) == ((), None, 1, 1)


def test_a_rollback_tells_what_was_wrong() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    escalations: list[Escalation] = []
    order: list[str] = []

    def note(escalation: Escalation) -> None:
        escalations.append(escalation)
        order.append("escalation")

    guard = StepGuard(
        model,
        optimizer,
        snapshot_every=1,
        on_escalation=note,
        on_reject=lambda decision: order.append(decision.verdict.value),
    )
    was = float(model.weight[0, 1].detach())
    with torch.no_grad():
        model.weight[0, 1] = NAN
    guard.backward(model(torch.ones(3, 2)).mean())
    (escalation,) = escalations
    (found,) = escalation.damage
    assert (found.name, found.index, found.before, found.bad) == ("model/weight", (0, 1), was, 1)
    assert order == ["reject_micro_batch", "escalation"], "the rejection is told before what follows from it"
    assert float(model.weight[0, 1].detach()) == was


# ---- a number, or training ------------------------------------------------------------------------------------------------


def weights(seed: int = 0, **shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes or {"conv": (8, 4, 3, 3), "norm": (32,), "bias": (4,)}
    return {f"model/{k}": torch.randn(s, generator=generator).mul(0.1).requires_grad_() for k, s in shapes.items()}


def moved(before: dict[str, torch.Tensor], by: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        k: (v.detach() + by * torch.randn(v.shape, generator=generator)).requires_grad_() for k, v in before.items()
    }


@pytest.mark.parametrize("by", [0.0, 1e-4, 0.1, 10.0, 1e5])
def test_training_moves_all_numbers_however_far_it_goes(by: float) -> None:
    before = weights()
    assert lone_numbers(moved(before, by), before) == ()


@pytest.mark.parametrize("by", [0.0, 1e-4, 1e-2])
@pytest.mark.parametrize("value", [100.0, -1e3, 1e7])
def test_a_number_out_of_all_proportion_stands_out_though_all_have_moved(value: float, by: float) -> None:
    before = weights()
    live = moved(before, by)
    with torch.no_grad():
        live["model/conv"][3, 1, 2, 0] = value
        live["model/conv"][5, 0, 0, 0] = value
    assert lone_numbers(live, before) == ("model/conv",)


def test_what_is_no_lone_number() -> None:
    before = weights()
    live = moved(before, 1e-5)
    with torch.no_grad():
        live["model/conv"][0, 0, 0, 0] = 0.0  # a bit that made it smaller does not matter
        live["model/bias"][0] = 5.0  # three others say nothing
        live["model/norm"][:4] = 5.0  # too many
    assert lone_numbers(live, before) == ()
    assert lone_numbers({"ema/a": torch.full((20,), 1e6)}, {"ema/a": torch.zeros(20)}) == (), "not of the model"
    assert lone_numbers({"model/new": torch.ones(20)}, {}) == ()


def test_all_over_is_more_than_half_of_the_weights() -> None:
    before = weights(a=(20,), b=(20,), c=(20,), d=(20,))
    live = moved(before, 1e-3)
    assert not all_over(live, before)
    for names, expected in (("a", False), ("ab", False), ("abc", True)):
        ruined = {
            k: torch.full_like(v, NAN if k == "model/a" else 1e7) if k[-1] in names else v for k, v in live.items()
        }
        assert all_over({k: v.detach().requires_grad_() for k, v in ruined.items()}, before) is expected
    assert not all_over({"model/a": torch.tensor([NAN], requires_grad=True)}, {"model/a": torch.zeros(1)}), "who knows"


def test_where_all_was_zero_what_is_next_to_zero_is_not_absurd() -> None:
    before, live = {"a": torch.zeros(3)}, {"a": torch.tensor([0.0, 1e-25, 0.0])}
    (found,) = damages(live, ["a"], before)
    assert (found.bad, found.index) == (0, (1,)), "the largest one is named"
    live["a"][2] = 1e-20
    (found,) = damages(live, ["a"], before)
    assert (found.bad, found.index) == (1, (2,))


def test_what_is_absurd_is_so_beside_the_largest_number_of_before() -> None:
    live = {"a": torch.tensor([1.0, 5e8, 2e9])}
    assert [found.bad for found in damages(live, ["a"], {"a": torch.full((3,), 1e3)})] == [1]
    assert [found.bad for found in damages(live, ["a"], {"a": torch.ones(3)})] == [2]
    assert [found.bad for found in damages(live, ["a"], None)] == [2], "beside 1 where nothing is known"
    assert [found.bad for found in damages(live, ["a"], {"a": torch.ones(2)})] == [2]
