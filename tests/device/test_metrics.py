"""The metrics on numbers that are known."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.device.metrics import measure, precision_class

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
    from yolo_stable.device import Errors

    assert precision_class(torch.float32, Errors(rms=rms, q=q, maxrel=rms, nf=0)) == expected
