from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from yolo_stable.guard.health import all_finite, non_finite_names

FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
COMPLEX = [torch.complex64, torch.complex128]
WHOLE = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool]
WRONG = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def layout(name: str, dtype: torch.dtype) -> Tensor:
    """Return ones with the memory layout of this name."""
    shapes = {
        "0-dim": torch.ones((), dtype=dtype),
        "one": torch.ones(1, dtype=dtype),
        "vector": torch.ones(1031, dtype=dtype),
        "contiguous": torch.ones(2, 3, 5, 7, dtype=dtype),
        "transposed": torch.ones(7, 11, dtype=dtype).t(),
        "strided": torch.ones(64, dtype=dtype)[::3],
        "expanded": torch.ones(1, dtype=dtype).expand(9),
        "channels_last": torch.ones(2, 3, 5, 7, dtype=dtype).contiguous(memory_format=torch.channels_last),
    }
    return shapes[name]


LAYOUTS = ["0-dim", "one", "vector", "contiguous", "transposed", "strided", "expanded", "channels_last"]


def spoil(tensor: Tensor, value: float | complex) -> Tensor:
    """Write ``value`` at the last index of every dimension."""
    tensor[(-1,) * tensor.ndim] = torch.tensor(value, dtype=tensor.dtype)
    return tensor


@pytest.mark.parametrize("dtype", [*FLOATING, *COMPLEX], ids=str)
@pytest.mark.parametrize("name", LAYOUTS)
def test_one_wrong_element_at_the_end_is_found(name: str, dtype: torch.dtype) -> None:
    assert all_finite([layout(name, dtype)])
    for value in WRONG.values():
        assert not all_finite([spoil(layout(name, dtype), value)])
        assert not all_finite([layout(name, dtype), torch.ones(3), spoil(layout(name, dtype), value)])


@pytest.mark.parametrize("dtype", COMPLEX, ids=str)
@pytest.mark.parametrize("value", [complex(0, math.nan), complex(math.inf, 0), complex(0, -math.inf)], ids=str)
def test_either_part_of_a_complex_number_counts(value: complex, dtype: torch.dtype) -> None:
    tensor = spoil(torch.zeros(5, dtype=dtype), value)
    assert not all_finite([tensor])
    assert not all_finite([tensor.conj()])
    assert all_finite([torch.zeros(5, dtype=dtype).conj()])


@pytest.mark.parametrize("dtype", [*FLOATING, *COMPLEX], ids=str)
def test_the_largest_numbers_of_a_dtype_are_finite(dtype: torch.dtype) -> None:
    largest = torch.finfo(dtype).max
    value = complex(largest, -largest) if dtype.is_complex else largest
    tensor = torch.full((64,), value, dtype=dtype)
    assert all_finite([tensor])
    assert all_finite([-tensor])
    assert not all_finite([spoil(tensor, math.inf)])


def test_a_number_whose_square_overflows_is_finite() -> None:
    tensor = torch.full((4,), 3e38)
    assert not bool(tensor.square().sum().isfinite())
    assert all_finite([tensor])
    assert non_finite_names([("a", tensor)]) == ()


@pytest.mark.parametrize("dtype", WHOLE, ids=str)
def test_whole_numbers_are_finite(dtype: torch.dtype) -> None:
    assert all_finite([torch.ones(3, dtype=dtype)])
    assert non_finite_names([("a", torch.ones(3, dtype=dtype))]) == ()


def test_nothing_is_finite() -> None:
    assert all_finite([])
    assert all_finite([torch.empty(0), torch.empty(3, 0, dtype=torch.float16), torch.empty(0, dtype=torch.complex64)])
    assert all_finite(iter([torch.ones(2), torch.empty(0), torch.ones(2, dtype=torch.float64)]))
    assert not all_finite(iter([torch.empty(0), torch.tensor(math.nan)]))


@pytest.mark.parametrize("dtype", FLOATING, ids=str)
def test_each_dtype_of_a_mixed_list_is_looked_at(dtype: torch.dtype) -> None:
    mixed = {dtype: torch.ones(4, dtype=dtype) for dtype in FLOATING}
    assert all_finite(mixed.values())
    spoil(mixed[dtype], math.nan)
    assert not all_finite(mixed.values())


def test_parameters_are_read_without_a_trace() -> None:
    parameter = torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))
    assert all_finite([parameter, torch.nn.Parameter(torch.ones(2))])
    assert parameter.grad is None


NAMED = [(f"p{i}", torch.full((2,), math.nan)) for i in range(8)]


@pytest.mark.parametrize(
    ("bad", "names"),
    [
        (0, ()),
        (1, ("p0",)),
        (5, ("p0", "p1", "p2", "p3", "p4")),
        (6, ("p0", "p1", "p2", "p3", "p4", "and 1 more")),
        (8, ("p0", "p1", "p2", "p3", "p4", "and 3 more")),
    ],
)
def test_names_are_given_up_to_a_limit(bad: int, names: tuple[str, ...]) -> None:
    mixed = [("fine", torch.ones(2)), *NAMED[:bad], ("empty", torch.empty(0)), ("whole", torch.ones(2).int())]
    assert non_finite_names(mixed) == names


@pytest.mark.parametrize("dtype", [*FLOATING, *COMPLEX], ids=str)
def test_both_ways_of_asking_agree(dtype: torch.dtype) -> None:
    for value in [1.0, -3e4, *WRONG.values()]:
        tensor = spoil(torch.zeros(9, dtype=dtype), value)
        assert all_finite([tensor]) == (non_finite_names([("a", tensor)]) == ())
