from __future__ import annotations

import math

import pytest
import torch

from yolo_stable.autopsy.ranges import Range, damage_of, in_memory_order, is_finite, range_of

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_one_bad_element_is_seen(dtype: torch.dtype, value: float) -> None:
    tensor = torch.ones(3, 4, dtype=dtype)
    assert is_finite(tensor)
    tensor[1, 2] = value
    assert not is_finite(tensor)
    damage = damage_of(tensor)
    assert (damage.index, damage.value, damage.non_finite, damage.rows) == ((1, 2), str(value), 1, (1,))
    assert damage.only_minus == (value == -math.inf)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_a_sum_that_overflows_is_not_taken_for_damage(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    assert is_finite(torch.full((1000,), largest, dtype=dtype))
    assert is_finite(torch.tensor([largest, -largest] * 500, dtype=dtype))
    assert is_finite(torch.full((500, 2), largest, dtype=dtype).t())


@pytest.mark.parametrize(
    "tensor",
    [torch.empty(0), torch.tensor(7), torch.ones(2, dtype=torch.bool), torch.eye(3).to_sparse()],
    ids=["empty", "integer", "bool", "sparse"],
)
def test_what_holds_no_bad_number_is_finite(tensor: torch.Tensor) -> None:
    assert is_finite(tensor)


def test_a_range_is_that_of_the_finite_elements() -> None:
    assert range_of("x", torch.tensor([[1.0, -2.0], [math.nan, math.inf]])) == Range(
        name="x", dtype="float32", shape=(2, 2), low=-2.0, high=1.0, non_finite=2, numel=4
    )
    nothing = range_of("x", torch.tensor([math.nan]))
    assert (nothing.low, nothing.high) == (None, None)


def test_a_single_number_has_neither_index_nor_rows() -> None:
    damage = damage_of(torch.tensor(-math.inf))
    assert (damage.index, damage.rows, damage.value, damage.only_minus) == ((), (), "-inf", True)


def test_at_most_64_rows_are_named() -> None:
    assert damage_of(torch.full((100, 2), math.nan)).rows == tuple(range(64))


def test_channels_last_is_read_as_it_lies_in_memory() -> None:
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert in_memory_order(tensor).is_contiguous()
