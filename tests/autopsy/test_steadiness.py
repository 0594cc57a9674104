"""Chance is not hardware: code that gives another result each time is told from a device that computes wrongly."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolo_stable.autopsy.case import TensorCase
from yolo_stable.autopsy.examine import examine
from yolo_stable.autopsy.replay import Deadline, Replayer
from yolo_stable.autopsy.steadiness import fickle
from yolo_stable.autopsy.symptom import Symptom

Noise = Callable[[], float]
_calls = [0]


def own_torch() -> Noise:
    generator = torch.Generator().manual_seed(3)
    return lambda: float(torch.rand((), generator=generator))


def own_numpy() -> Noise:
    generator = np.random.default_rng(3)
    return lambda: float(generator.random())


def own_python() -> Noise:
    return random.Random(3).random


def old_numpy() -> Noise:
    generator = np.random.RandomState(3)
    return lambda: float(generator.random_sample())


def counter() -> Noise:
    calls = [0]

    def noise() -> float:
        calls[0] += 1
        return (calls[0] % 7) / 7

    return noise


def counter_of_the_file() -> Noise:
    def noise() -> float:
        _calls[0] += 1
        return (_calls[0] % 7) / 7

    return noise


def global_torch() -> Noise:
    return lambda: float(torch.rand(()))


def global_numpy() -> Noise:
    return lambda: float(np.random.random())


def global_python() -> Noise:
    return random.random


KINDS = [
    own_torch,
    own_numpy,
    own_python,
    old_numpy,
    counter,
    counter_of_the_file,
    global_torch,
    global_numpy,
    global_python,
]


class Noisy(nn.Module):
    """A layer that breaks by chance: where its noise is beyond a limit, it gives NaN."""

    def __init__(self, noise: Noise, limit: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.noise, self.limit = nn.Linear(4, 2), noise, limit

    def forward(self, x: Tensor) -> Tensor:
        drawn = self.noise()
        return self.layer(x) * (float("nan") if drawn > self.limit else 1.0 + 0.01 * drawn)


def case_of(model: nn.Module) -> TensorCase:
    def forward(network: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        inputs, targets = batch
        loss = (network(inputs) - targets).square().mean()
        return loss, {"mse": loss}

    x = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    return TensorCase(model, (x, torch.zeros(6, 2)), forward)


NAN_SEEN = Symptom(loss=float("nan"))


@pytest.mark.parametrize("limit", [pytest.param(0.5, id="often"), pytest.param(2.0, id="not again")])
@pytest.mark.parametrize("kind", KINDS)
def test_chance_is_undecided_and_names_no_image(kind: Callable[[], Noise], limit: float) -> None:
    report = examine(case_of(Noisy(kind(), limit)), NAN_SEEN, seconds=None)
    assert report.cause == "undecided", report.text()
    assert "not reproducible" in report.text()
    assert report.samples == ()
    assert "memory" not in report.next


def test_a_healthy_network_that_broke_once_is_transient() -> None:
    report = examine(case_of(nn.Linear(4, 2)), NAN_SEEN, seconds=None)
    assert report.cause == "hardware transient"


def test_a_loss_that_keeps_something_which_is_put_back_is_steady() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.seen, self.mean = nn.Linear(4, 2), 0, torch.zeros(())

        def forward(self, x: Tensor) -> Tensor:
            self.seen += 1
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
            return self.layer(x) * (1 + 0.1 * self.seen)

    case = case_of(Counting())
    assert fickle(case, Replayer(NAN_SEEN, Deadline(None)), sick=False) == ""


def test_what_breaks_each_time_is_reproducible_whatever_noise_there_is() -> None:
    case = case_of(Noisy(own_torch(), -1.0))
    assert fickle(case, Replayer(NAN_SEEN, Deadline(None)), sick=True) == ""


def test_dropout_whose_numbers_are_put_back_is_steady() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2))
    case = case_of(model)
    plain = case.forward

    def forward(network: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        torch.manual_seed(5)
        return plain(network, batch, precision)

    case.forward = forward
    assert fickle(case, Replayer(NAN_SEEN, Deadline(None)), sick=False) == ""
