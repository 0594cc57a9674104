"""The metrics on numbers that are known, and the inputs that must be the same everywhere."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.device.hashed import Draw, hash_stream, sha256_of
from yolo_stable.device.metrics import measure, precision_class
from yolo_stable.device.sketch import distance, sketch

NAN, INF = float("nan"), float("inf")
PINNED = [7569578889909940714, 4504528965725572720, 1981871072442075640]
DIGEST = "352c52b6cce0651f9757bbd93c8c8de0eb3ab8a305a289dbe06aef1db1cc7cc2"


def test_the_stream_is_pinned() -> None:
    """Another machine, or another torch, must draw the same numbers."""
    assert hash_stream("a", 3).tolist() == PINNED
    x = Draw("0/linear/conv3x3-64")("x", 2, 3)
    assert sha256_of({"x": x}) == DIGEST


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
    from yolo_stable.device import Errors

    assert precision_class(torch.float32, Errors(rms=rms, q=q, maxrel=rms, nf=0)) == expected


def test_sketches_are_as_far_apart_as_the_tensors() -> None:
    a = Draw("a")("x", 5000)
    b = a + 0.01 * Draw("b")("x", 5000)
    assert distance(sketch(a), sketch(b)) == pytest.approx(float((a - b).norm()), rel=0.5)
    assert distance(sketch(a), sketch(a)) == 0.0
