"""A ruined state is looked at closely before it is put back."""

from __future__ import annotations

import math

import torch

from yolo_stable.guard import Climb, StepGuard
from yolo_stable.guard.damage import damages

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
    climbs: list[Climb] = []
    order: list[str] = []

    def note(climb: Climb) -> None:
        climbs.append(climb)
        order.append("climb")

    guard = StepGuard(
        model,
        optimizer,
        snapshot_every=1,
        on_climb=note,
        on_reject=lambda decision: order.append(decision.verdict.value),
    )
    was = float(model.weight[0, 1].detach())
    with torch.no_grad():
        model.weight[0, 1] = NAN
    guard.backward(model(torch.ones(3, 2)).mean())
    (climb,) = climbs
    (found,) = climb.damage
    assert (found.name, found.index, found.before, found.bad) == ("model/weight", (0, 1), was, 1)
    assert order == ["reject_micro_batch", "climb"], "the rejection is told before what follows from it"
    assert float(model.weight[0, 1].detach()) == was
