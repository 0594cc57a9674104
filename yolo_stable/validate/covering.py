"""A covering array: few rows in which every value of every factor meets every value of every other factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations

Row = dict[str, str]


def pairwise(**factors: Sequence[str]) -> list[Row]:
    """Return rows that hold all pairs of values of different factors; the same rows on every machine.

    Args:
        factors: The values of each, by name.

    Returns:
        About the product of the two longest factors, not of all: five factors of six values need 50 rows, not 7776.

    Examples:
        >>> len(pairwise(a="xy", b="xy", c="xy"))
        4
    """
    rows = _rows(tuple((name, tuple(values)) for name, values in factors.items()))
    return [dict(zip(factors, row, strict=True)) for row in rows]


@cache
def _rows(factors: tuple[tuple[str, tuple[str, ...]], ...]) -> tuple[tuple[str, ...], ...]:
    values = [v for _, v in factors]
    left = {
        (i, x, j, y): None  # a dictionary keeps the order in which pairs are asked for
        for i, j in combinations(range(len(values)), 2)
        for x in values[i]
        for y in values[j]
    }
    rows = []
    while left:
        i, x, j, y = next(iter(left))
        row: dict[int, str] = {i: x, j: y}
        for k in range(len(values)):
            if k not in row:
                row[k] = max(values[k], key=lambda v: _gain(left, row, k, v))
        for m, n in combinations(range(len(values)), 2):
            left.pop((m, row[m], n, row[n]), None)
        rows.append(tuple(row[k] for k in range(len(values))))
    return tuple(rows)


def _gain(left: Mapping[tuple[int, str, int, str], None], row: Mapping[int, str], k: int, value: str) -> int:
    """Return how many pairs that are still missing a value of factor ``k`` would bring into a row."""
    return sum(((i, x, k, value) if i < k else (k, value, i, x)) in left for i, x in row.items())
