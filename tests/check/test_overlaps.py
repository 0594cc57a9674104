"""Outlines are compared by what they cover."""

from __future__ import annotations

import numpy as np
import pytest

from yolo_stable.check.overlaps import outline_overlap

SQUARE = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


@pytest.mark.parametrize(("shift", "expected"), [(0.0, 1.0), (0.2, 0.8 / 1.2), (0.5, 1 / 3), (2.0, 0.0)])
def test_the_overlap_of_a_square_that_is_moved(shift: float, expected: float) -> None:
    assert outline_overlap(SQUARE, SQUARE + np.array([shift, 0.0])) == pytest.approx(expected, abs=0.02)
    assert outline_overlap(SQUARE + np.array([0.0, shift]), SQUARE) == pytest.approx(expected, abs=0.02)


def test_an_outline_within_another_one() -> None:
    assert outline_overlap(SQUARE, SQUARE / 2 + 0.25) == pytest.approx(0.25, abs=0.02)
