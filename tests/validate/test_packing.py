"""Outputs that are judged together: what belongs together, what is told when one is wrong, and what may not get lost."""

from __future__ import annotations

import torch

from yolo_stable.validate import Status
from yolo_stable.validate.backend import BACKENDS
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.packing import Packing, misshapen, worst_piece

OUTPUTS = {
    "add|gaps": torch.ones(2, 3),
    "add|plain": torch.zeros(4),
    "sum|plain": torch.tensor(2.0),
    "add|count": torch.tensor([7]),
}


def test_outputs_of_one_operation_and_type_are_packed_in_their_order() -> None:
    packing = Packing.of(OUTPUTS)
    packed = packing.pack(OUTPUTS)
    assert {name: t.tolist() for name, t in packed.items()} == {
        "add:float32": [1.0] * 6 + [0.0] * 4,
        "sum:float32": [2.0],
        "add:int64": [7],
    }
    assert packing.pieces(OUTPUTS)["add:float32"] == (("gaps", 6), ("plain", 4))


def test_a_wrong_shape_kind_or_name_is_told_although_flat_numbers_would_be_equal() -> None:
    wrong = {"add|gaps": torch.ones(3, 2), "add|plain": torch.zeros(4), "add|count": torch.tensor([7.0])}
    said = misshapen(wrong, OUTPUTS)
    assert [line.split(" is ")[0].split(" has ")[0] for line in said] == ["sum|plain", "add|gaps", "add|count"]
    assert misshapen(OUTPUTS, OUTPUTS) == []


def test_the_combination_with_the_largest_error_is_named() -> None:
    pieces = (("first", 2), ("second", 3), ("third", 1))
    right = torch.tensor([1.0, 2.0, 3.0, 4.0, float("nan"), 6.0])
    wrong = right.clone()
    wrong[3] += 0.5
    wrong[0] += 0.25
    assert worst_piece(wrong, right, None, pieces) == "second"
    assert worst_piece(wrong, right, torch.tensor([0.01, 1, 1, 1, 1, 1]), pieces) == "first"
    wrong[5] = float("nan")
    assert worst_piece(wrong, right, None, pieces) == "third"


class OneWrong(Machine):
    """Adds one to one element of one output."""

    def fetch(self, tensor: torch.Tensor) -> torch.Tensor:
        """As on a real device, but for counters of a certain size."""
        found = super().fetch(tensor)
        if found.dtype == torch.int64 and found.shape == (3,):
            found[1] += 1
        return found


def test_a_failing_check_says_in_which_combination() -> None:
    result = Executor(OneWrong(BACKENDS["cpu"])).run(find_case("exact/cover-counters/contiguous/exact"))
    assert result.status is Status.FAIL
    assert "step-int64:int64 at int64-0-(3,): maxrel" in result.reason
