"""Where a value that is not finite comes from, by the memory that it lies in."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.autopsy.modules import OUTSIDE
from yolo_stable.autopsy.taint import (
    KEPT,
    LITERAL,
    RAW,
    Birth,
    Origin,
    Taint,
    earliest,
    is_whole,
    key_of,
    outside,
    version_of,
)


@pytest.mark.parametrize("whole", [True, False])
def test_what_a_memory_comes_from_is_forgotten_when_it_is_written_over_as_a_whole(whole: bool) -> None:
    taint, tensor = Taint(), torch.zeros(4)
    origin = Origin("input x", soft=False)
    taint.mark(tensor, {origin})
    assert taint.look(tensor.view(2, 2)) == (frozenset({origin}), True)
    assert taint.look(tensor[:2]) == (frozenset({origin}), False)
    taint.clear(tensor if whole else tensor[:2], written=True)
    assert taint.of(tensor) == (frozenset() if whole else frozenset({origin}))


def test_the_earliest_births_are_remembered_and_masks_come_last() -> None:
    taint, tensor = Taint(), torch.zeros(4)
    births = [Birth(ordinal, ordinal % 2 == 0, OUTSIDE, {}) for ordinal in range(20)]
    taint.mark(tensor, births)
    assert sorted(tag.ordinal for tag in taint.of(tensor) if isinstance(tag, Birth)) == [1, 3, 5, 7, 9, 11, 13, 15]


def test_elements_that_were_written_since_are_not_known_to_be_bad() -> None:
    taint, tensor = Taint(), torch.zeros(4)
    origin = Origin("input x", soft=False)
    taint.mark(tensor, {origin})
    tensor.add_(1.0)
    assert taint.look(tensor) == (frozenset({origin}), False), "where it comes from is known, what it holds now is not"
    taint.mark(tensor, {origin})
    assert taint.look(tensor) == (frozenset({origin}), True)


def test_a_tensor_that_is_written_in_part_keeps_what_the_rest_comes_from() -> None:
    taint, tensor = Taint(), torch.zeros(4)
    first, second = Origin("a", soft=False), Origin("b", soft=False)
    taint.mark(tensor, {first})
    taint.mark(tensor[:2], {second}, add=True)
    assert taint.of(tensor) == {first, second}
    taint.mark(tensor, {second}, add=True)
    assert taint.of(tensor) == {second}, "as a whole"


def test_memory_that_nobody_has_written_is_never_known_to_be_bad() -> None:
    taint, tensor = Taint(), torch.zeros(4)
    birth = Birth(3, False, OUTSIDE, {})
    taint.mark(tensor, {RAW, birth})
    assert taint.look(tensor) == (frozenset({birth}), False)
    taint.mark(tensor, {RAW})
    assert taint.look(tensor) == (frozenset({RAW}), False)


def test_memory_is_known_by_what_all_views_share() -> None:
    tensor, other = torch.zeros(4), torch.zeros(4)
    assert key_of(tensor) == key_of(tensor.view(2, 2)) == key_of(tensor[3:]) != key_of(other)
    sparse = torch.eye(2).to_sparse()
    assert key_of(sparse) == -id(sparse), "it has no memory of its own"
    assert is_whole(sparse)
    assert [is_whole(t) for t in (tensor, tensor.view(2, 2), tensor[1:], tensor[:0])] == [True, True, False, False]
    wide = torch.zeros(4, dtype=torch.float64)
    assert is_whole(wide)
    assert not is_whole(wide[:3])


def test_a_fresh_result_is_forgotten_also_when_it_is_a_part_of_its_memory() -> None:
    taint, tensor = Taint(), torch.zeros(4)
    taint.mark(tensor, {Origin("x", soft=False)})
    taint.clear(tensor[:2])
    assert taint.look(tensor) == (frozenset(), False)
    taint.clear(tensor)
    assert taint.of(tensor) == frozenset()


@pytest.mark.parametrize(
    ("values", "soft"),
    [
        ([0.0, 1.0], None),
        ([0.0, float("-inf")], True),
        ([float("-inf"), float("-inf")], True),
        ([1.0, float("-inf")], False),
        ([0.0, float("inf")], False),
        ([0.0, float("nan")], False),
        ([0.0, float("-inf"), float("nan")], False),
    ],
)
def test_a_tensor_from_outside_is_an_origin_unless_it_is_finite_and_soft_when_it_is_a_mask(
    values: list[float], soft: bool | None
) -> None:
    origin = outside(torch.tensor(values), "input x")
    assert (None if origin is None else (origin.name, origin.soft)) == (None if soft is None else ("input x", soft))


def test_what_is_blamed_first_is_what_came_first_and_is_no_mask() -> None:
    births = [Birth(n, n == 0, OUTSIDE, {}) for n in range(9)]
    before = Origin("input x", soft=False)
    late = Origin("input y", soft=False, birth=births[8])
    kept = earliest([*births, before, late])
    assert len(kept) == KEPT
    assert before in kept, "it was there before any operation"
    assert births[0] not in kept
    assert late not in kept
    assert births[7] in kept
    assert births[8] not in kept


def test_how_often_a_tensor_was_written_is_not_known_in_inference() -> None:
    with torch.inference_mode():
        assert version_of(torch.zeros(1)) == -1
    tensor = torch.zeros(1)
    before = version_of(tensor)
    tensor.add_(1.0)
    assert version_of(tensor) == before + 1


def test_a_result_that_is_a_part_of_its_memory_comes_from_what_made_it_alone() -> None:
    taint, tensor = Taint(), torch.zeros(4)
    first, second = Origin("a", soft=False), Origin("b", soft=False)
    taint.mark(tensor, {first})
    taint.mark(tensor[:2], {second})
    assert taint.of(tensor) == {second}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_memory_that_nobody_has_written_is_not_known_to_be_bad_whatever_its_size(count: int) -> None:
    taint, tensor = Taint(), torch.zeros(count)
    taint.mark(tensor, {RAW})
    assert taint.look(tensor) == (frozenset({RAW}), False)


def test_an_input_is_blamed_before_what_the_first_operation_made() -> None:
    made = [Birth(0, False, OUTSIDE, {}) for _ in range(KEPT)]
    given = Origin("input x", soft=False)
    assert earliest([given, *made]) == {given, *made[:-1]}


def test_that_a_number_of_the_code_went_in_is_remembered_beside_many_births() -> None:
    taint, tensor = Taint(), torch.zeros(4)
    taint.mark(tensor, [*(Birth(n, False, OUTSIDE, {}) for n in range(1, 20)), LITERAL])
    assert LITERAL in taint.of(tensor)
