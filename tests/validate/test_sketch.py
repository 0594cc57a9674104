"""A tensor in sixteen numbers."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.validate.deviation import distance
from yolo_stable.validate.hashed import HashedDraw
from yolo_stable.validate.sketch import sketch


def test_sketches_are_as_far_apart_as_the_tensors() -> None:
    a = HashedDraw("a")("x", 5000)
    b = a + 0.01 * HashedDraw("b")("x", 5000)
    assert distance(sketch(a), sketch(b)) == pytest.approx(float((a - b).norm()), rel=0.5)
    assert distance(sketch(a), sketch(a)) == 0.0


def test_what_is_not_finite_counts_as_zero() -> None:
    x = torch.tensor([1.0, float("nan"), float("inf")])
    assert sketch(x) == sketch(torch.tensor([1.0, 0.0, 0.0]))
