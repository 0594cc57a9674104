"""Covering arrays: few rows in which each value of a factor meets each value of every other factor, and recipes over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from itertools import combinations
from typing import Any

from torch import Tensor

from ..hashed import HashedDraw
from ..packing import MARK
from ..recipe import Builder, Recipe, Tensors

Row = dict[str, str]


def over(rows: Iterable[Row], compute: Callable[..., Mapping[str, Tensor]], *given: Any) -> Tensors:
    """Return what is computed in each row, called ``operation|values of the row``.

    Args:
        rows: Of a covering array.
        compute: Takes the number of a row, the row, and what is given; returns results by the names of operations.
        *given: What all rows take their numbers from.
    """
    return {
        f"{name}{MARK}{'-'.join(row.values())}": t
        for i, row in enumerate(rows)
        for name, t in compute(i, row, *given).items()
    }


def covered(
    inputs: Callable[[HashedDraw], Tensors],
    *parts: tuple[Iterable[Row], Callable[..., Mapping[str, Tensor]]],
    **how: Any,
) -> Builder:
    """Return the builder of a recipe that computes, for each part, an operation in all rows of a covering array.

    Args:
        inputs: Draws what all rows take their numbers from.
        *parts: Rows, and what :func:`over` calls for each of them.
        **how: Further fields of the recipe; the params of the check are handed on to the operation.
    """

    def build(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
        def compute(*tensors: Tensor) -> Tensors:
            return {
                name: t for rows, each in parts for name, t in over(rows, partial(each, **params), *tensors).items()
            }

        return Recipe(inputs=inputs(draw), compute=compute, packed=True, **how)

    return build


def pairwise(**factors: Sequence[str]) -> list[Row]:
    """Return rows that hold all pairs of values of different factors; the same rows on every machine.

    They are about as many as the product of the two longest factors: five factors of six values need 50 rows, not 7776.

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
    """Return how many missing pairs a value of factor ``k`` would bring into a row."""
    return sum(((i, x, k, value) if i < k else (k, value, i, x)) in left for i, x in row.items())
