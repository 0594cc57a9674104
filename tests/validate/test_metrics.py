"""The metrics on numbers that are known."""

from __future__ import annotations

import math

import pytest
import torch

from yolo_stable.validate.metrics import UNIT, measure, precision_class, value_scale

NAN, INF = float("nan"), float("inf")


def test_an_error_of_one_part_in_a_hundred_is_seen_by_both_metrics() -> None:
    r = torch.tensor([3.0, 4.0], dtype=torch.float64)
    errors = measure(torch.tensor([3.0, 4.0 + 2.0**-4]), r, scale=r.abs())
    assert errors.rms == pytest.approx(2.0**-4 / 5)
    assert errors.q == pytest.approx(2.0**-4 / (2.0**-24 * 4))
    assert errors.maxrel == pytest.approx(2.0**-4 / 4)


def test_each_kind_of_number_that_is_not_finite_is_its_own() -> None:
    r = torch.tensor([NAN, INF, -INF, 1.0], dtype=torch.float64)
    assert measure(r.float(), r).nf == 0
    assert measure(torch.tensor([INF, NAN, INF, 1.0]), r).nf == 3
    assert measure(torch.tensor([NAN, INF, -INF, NAN]), r).nf == 1


def test_another_shape_is_no_small_error() -> None:
    assert measure(torch.zeros(3), torch.zeros(4)).rms == INF


def test_a_gradient_of_nothing_is_measured_against_all_gradients() -> None:
    errors = measure(torch.tensor([1e-9]), torch.tensor([0.0], dtype=torch.float64), floor=1e-3)
    assert errors.rms == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("rms", "q", "expected"),
    [
        (3e-7, 4.0, "ieee-fp32"),
        (3e-4, 1e4, "tf32"),
        (2e-3, 1e5, "bf16"),
        (8e-6, 1e4, "broken"),
        (0.1, 1e6, "broken"),
        (NAN, NAN, "broken"),
    ],
)
def test_the_size_of_the_error_tells_the_precision(rms: float, q: float, expected: str) -> None:
    from yolo_stable.validate import Errors

    assert precision_class(torch.float32, Errors(rms=rms, q=q, maxrel=rms, nf=0)) == expected


@pytest.mark.parametrize(
    ("dtype", "rms", "expected"),
    [
        (torch.float32, 1.5e-2, "broken"),
        (torch.bfloat16, 1.5e-2, "bf16"),  # rounds to seven bits what float32 keeps
        (torch.bfloat16, 3e-2, "broken"),
        (torch.float16, 5e-3, "fp16"),
        (torch.float16, 1.5e-2, "broken"),
        (torch.bfloat16, 1e-7, "bf16"),
        (torch.bfloat16, 2e-2, "bf16"),  # each limit itself is allowed
        (torch.float16, 1e-2, "fp16"),
        (torch.float32, 1e-2, "bf16"),
        (torch.float32, 1.2e-3, "tf32"),
        (torch.float32, 2e-5, "ieee-fp32"),
    ],
)
def test_what_a_result_in_16_bits_may_be_off_depends_on_its_type(dtype: torch.dtype, rms: float, expected: str) -> None:
    from yolo_stable.validate import Errors

    assert precision_class(dtype, Errors(rms=rms, q=1.0, maxrel=rms, nf=0)) == expected
    assert precision_class(dtype, Errors(rms=rms, q=None, maxrel=rms, nf=1)) == "broken"


@pytest.mark.parametrize(
    ("rms", "q", "expected"), [(1e-6, None, "ieee-fp32"), (1e-6, 1024.0, "ieee-fp32"), (1e-6, 1025.0, "broken")]
)
def test_one_wrong_element_is_seen_where_elements_are_measured(rms: float, q: float | None, expected: str) -> None:
    from yolo_stable.validate import Errors

    assert precision_class(torch.float32, Errors(rms=rms, q=q, maxrel=rms, nf=0)) == expected


def test_whole_numbers_are_equal_or_not() -> None:
    reference = torch.tensor([1, 2, 3, 4])
    errors = measure(torch.tensor([1, 2, 3, 9]), reference)
    assert (errors.rms, errors.q, errors.maxrel, errors.nf) == (0.5, math.inf, 1.0, 0)
    assert measure(torch.tensor([True]), torch.tensor([False])).rms == 1.0
    same = measure(reference.clone(), reference)
    assert (same.rms, same.q, same.maxrel, same.nf) == (0.0, None, 0.0, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_element_that_is_off_by_the_distance_to_the_next_number_is_two_roundoffs_off(dtype: torch.dtype) -> None:
    step = torch.finfo(dtype).eps
    value, reference = torch.tensor([1.0 + step, 2.0], dtype=dtype), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert measure(value, reference, scale=reference).q == 2.0
    assert measure(value, reference, scale=2 * reference).q == 1.0
    assert UNIT[dtype] == step / 2


def test_roundoffs_are_those_of_what_was_computed_in_when_that_is_coarser() -> None:
    value, reference = torch.tensor([1.0 + 2.0**-7]), torch.ones(1, dtype=torch.float64)
    assert measure(value, reference, scale=reference, unit=UNIT[torch.bfloat16]).q == 2.0
    assert measure(value, reference, scale=reference, unit=UNIT[torch.float64]).q == 2.0**17, "the result is in float32"


def test_an_error_of_an_element_without_terms_is_without_measure_and_none_is_none() -> None:
    reference = torch.zeros(2, dtype=torch.float64)
    right = measure(torch.zeros(2), reference, scale=reference)
    assert (right.rms, right.q, right.maxrel) == (0.0, 0.0, 0.0)
    wrong = measure(torch.tensor([0.0, 1e-30]), reference, scale=reference)
    assert (wrong.rms, wrong.q, wrong.maxrel) == (INF, INF, INF)


def test_a_floor_counts_for_the_largest_element_as_for_the_norm() -> None:
    reference = torch.tensor([0.0, 0.0, 0.0, 1e-9], dtype=torch.float64)
    errors = measure(torch.tensor([0.0, 1e-6, 0.0, 1e-9]), reference, floor=1e-3)
    assert errors.rms == pytest.approx(1e-3)
    assert errors.maxrel == pytest.approx(1e-6 / (1e-3 / 2))
    large = measure(torch.tensor([0.0, 1.0, 0.0, 4.0]), torch.tensor([0.0, 0.0, 0.0, 4.0]).double(), floor=1e-3)
    assert (large.rms, large.maxrel) == (0.25, 0.25)


def test_nothing_is_measured_where_nothing_is() -> None:
    errors = measure(torch.empty(0), torch.empty(0, dtype=torch.float64), scale=torch.empty(0))
    assert (errors.rms, errors.q, errors.maxrel, errors.nf) == (0.0, None, 0.0, 0)
    assert measure(torch.empty(0), torch.empty(3, dtype=torch.float64)).nf == 1, "another shape"


def test_elements_that_are_not_finite_do_not_hide_the_error_of_the_others() -> None:
    reference = torch.tensor([NAN, 3.0, INF, 4.0], dtype=torch.float64)
    errors = measure(torch.tensor([NAN, 3.5, INF, 4.0]), reference, scale=reference.abs())
    assert errors.nf == 0
    assert errors.rms == pytest.approx(0.1)
    assert errors.maxrel == pytest.approx(0.125)
    assert errors.q == pytest.approx(0.5 / (2.0**-24 * 3))


def test_the_terms_of_an_element_are_its_size_and_that_of_its_neighbours() -> None:
    reference = torch.tensor([3.0, -4.0, NAN, 0.0], dtype=torch.float64)
    assert value_scale(reference).tolist() == [5.5, 6.5, 2.5, 2.5]
    assert value_scale(torch.empty(0)).tolist() == []


@pytest.mark.parametrize("theirs", [1.0, INF, -INF, NAN])
@pytest.mark.parametrize("mine", [1.0, INF, -INF, NAN])
def test_any_two_kinds_of_numbers_are_told_apart(mine: float, theirs: float) -> None:
    alike = mine == theirs or (mine != mine and theirs != theirs)
    assert measure(torch.tensor([mine, 2.0]), torch.tensor([theirs, 2.0]).double()).nf == (0 if alike else 1)


def test_a_roundoff_is_half_the_distance_from_one_to_the_next_number_of_a_type() -> None:
    assert {dtype: torch.finfo(dtype).eps / 2 for dtype in UNIT} == UNIT
    assert torch.float64 in UNIT


@pytest.mark.parametrize("theirs", [1e-30, 0.0])
def test_what_is_computed_where_nothing_should_be_is_without_measure(theirs: float) -> None:
    errors = measure(torch.tensor([theirs]), torch.zeros(1, dtype=torch.float64))
    assert errors.rms == errors.maxrel == (INF if theirs else 0.0)
