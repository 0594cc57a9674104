"""How an operation is laid out, run and compared, on numbers that are known."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.validate import BACKENDS, Status
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.evidence import conclude
from yolo_stable.validate.hashed import HashedDraw
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.recipe import Recipe, describe_change, lay_out, run_recipe, same_bits

CASE = find_case("linear/matmul-nn/contiguous/strict")


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "view"])
def test_a_layout_changes_strides_and_no_number(layout: str) -> None:
    x = HashedDraw("k")("x", 2, 3, 4, 5).float()
    y = lay_out(x, layout)
    assert torch.equal(x, y)
    assert y.is_contiguous() is (layout == "contiguous")
    assert y.is_contiguous(memory_format=torch.channels_last) is (layout == "channels_last")


def test_two_dimensions_are_exchanged_in_memory_or_half_of_the_channels_are_those_of_a_larger_tensor() -> None:
    x = HashedDraw("k")("x", 2, 3, 4, 5).float()
    for layout, strides in (("transposed", (60, 5, 15, 1)), ("chunk", (120, 20, 5, 1))):
        y = lay_out(x, layout)
        assert torch.equal(x, y)
        assert y.stride() == strides
    assert lay_out(x[0, 0], "transposed").stride() == (1, 4)
    assert lay_out(x[0, 0, 0], "chunk").storage_offset() == 5


def test_only_the_first_input_lies_in_another_order_when_they_are_mixed() -> None:
    x = HashedDraw("k")("x", 2, 3, 4, 5).float()
    first, other = (lay_out(x, "mixed", first=first) for first in (True, False))
    assert torch.equal(first, other)
    assert (first.stride(), other.stride()) == ((60, 1, 15, 3), (60, 20, 5, 1))


def test_integers_and_scalars_keep_their_layout() -> None:
    for x in (torch.arange(6), torch.tensor(1.0)):
        assert lay_out(x, "view") is x


def test_bits_are_compared_not_numbers() -> None:
    nan = torch.tensor([float("nan")])
    assert same_bits(nan, nan.clone())
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert describe_change({"a": nan}, {"a": nan.clone()}) == "bitwise"
    assert describe_change({"a": torch.tensor([4.0, 1.0])}, {"a": torch.tensor([4.0, 1.5])}) == "differs (1.2e-01)"
    assert describe_change({"a": nan}, {"a": torch.ones(1)}) == "differs (a: other elements are finite)"


def test_the_second_call_is_judged_where_it_differs_from_the_first() -> None:
    """A device may search for a faster kernel after the first call."""
    calls: list[torch.dtype] = []

    def compute(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        calls.append(a.dtype)
        return (a @ b) * (1.01 if calls.count(torch.float32) == 2 else 1.0)

    draw = HashedDraw("0/k")
    recipe = Recipe(inputs={"a": draw("a", 8, 8), "b": draw("b", 8, 8)}, compute=compute, scale="linear")
    result = conclude(CASE, run_recipe(recipe, Machine(BACKENDS["cpu"]), CASE, draw, {}))
    assert result.status is Status.FAIL
    assert result.reason.startswith("out, call 2: rms 1.0e-02 is over 5.0e-05")
    assert result.determinism["poison"].startswith("differs")


def test_a_reference_is_computed_once_for_all_layouts() -> None:
    seen: list[torch.dtype] = []

    def compute(a: torch.Tensor) -> torch.Tensor:
        seen.append(a.dtype)
        return a * 2

    draw, memory = HashedDraw("0/k"), {}
    recipe = Recipe(inputs={"a": draw("a", 8)}, compute=compute)
    for _ in range(3):
        run_recipe(recipe, Machine(BACKENDS["cpu"]), CASE, draw, memory)
    assert (seen.count(torch.float64), seen.count(torch.float32)) == (1, 6)
