"""Covering arrays: all pairs are there, with far fewer rows than all combinations."""

from __future__ import annotations

from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from yolo_stable.validate.operations.covering import pairwise


@given(st.lists(st.integers(1, 5), min_size=2, max_size=5))
def test_every_pair_of_values_is_in_some_row(counts: list[int]) -> None:
    factors = {f"f{i}": [f"{k}" for k in range(count)] for i, count in enumerate(counts)}
    rows = pairwise(**factors)
    for a, b in combinations(factors, 2):
        assert {(row[a], row[b]) for row in rows} == set(product(factors[a], factors[b]))


def test_rows_are_few_and_always_the_same() -> None:
    layouts, broadcasts = [f"l{i}" for i in range(6)], [f"b{i}" for i in range(10)]
    rows = pairwise(a=layouts, b=layouts, broadcast=broadcasts, form="nio", size="12345")
    assert len(rows) <= 75  # of 5400 combinations; 60 are the least
    assert rows == pairwise(a=layouts, b=layouts, broadcast=broadcasts, form="nio", size="12345")
