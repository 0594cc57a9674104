"""Whether the numbers of a batch are of one size, whichever that is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from yolo_stable.guard import StepGuard
from yolo_stable.incidents.pixels import are_of_one_scale


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def thermal(scale: float) -> Tensor:
    """Nearly one value everywhere, and a small warm spot."""
    batch = torch.full((4, 1, 64, 64), 0.1)
    batch[:, :, 10:20, 10:20] = 0.3
    return batch * scale


@pytest.mark.parametrize("scale", [1e-6, 1.0, 16.0, 257.0, 65535.0, 1e9, -1.0])
@pytest.mark.parametrize(
    "make", [lambda s: images() * s, lambda s: images(1) * s, thermal], ids=["noise", "one", "thermal"]
)
def test_data_of_any_scale_are(make: Callable[[float], Tensor], scale: float) -> None:
    assert are_of_one_scale(make(scale))


def test_dark_and_bright_ones_are() -> None:
    batch = images() * torch.tensor([0.3, 1.0, 1.0, 3.0]).view(4, 1, 1, 1)
    assert are_of_one_scale(batch)
    batch[0] = 0.0
    assert are_of_one_scale(batch)


@pytest.mark.parametrize("value", [1e3, 1e5, 1e20, -1e6, float("nan"), float("inf")])
@pytest.mark.parametrize("count", [1, 4])
def test_with_one_ruined_pixel_they_are_not(count: int, value: float) -> None:
    batch = images(count)
    batch[0, 1, 5, 5] = value
    assert not are_of_one_scale(batch)


@pytest.mark.parametrize("times", [20.0, 255.0, 1e6])
def test_with_one_image_of_another_scale_they_are_not(times: float) -> None:
    batch = images()
    batch[2] *= times
    assert not are_of_one_scale(batch)


class TestTheFirstJump:
    """Statistics that come from elsewhere jump to the level of the data with the first batch."""

    def run(self, scales: list[float], ruined: int | None = None) -> list[bool]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
        guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.01), max_jump=10.0)
        accepted = []
        for number, scale in enumerate(scales):
            batch = images(seed=number) * scale
            if number == ruined:
                batch[0, 0, 3, 3] = 1e6 * scale
            loss = model(batch).square().mean()
            accepted.append(bool(guard.backward(loss, of_one_scale=lambda batch=batch: are_of_one_scale(batch))))
            guard.step()
        return accepted

    def test_data_of_another_scale_lose_no_batch(self) -> None:
        assert self.run([257.0] * 4) == [True] * 4

    def test_a_ruined_pixel_is_rejected_in_the_first_batch_as_later(self) -> None:
        assert self.run([1.0] * 4, ruined=0) == [False, True, True, True]
        assert self.run([257.0] * 4, ruined=0) == [False, True, True, True]
        assert self.run([257.0] * 4, ruined=2) == [True, True, False, True]

    def test_later_a_batch_of_another_scale_is_a_fault_until_it_stays(self) -> None:
        assert self.run([1.0, 1.0, 1e4, 1.0]) == [True, True, False, True]
        assert self.run([1.0, 1e4, 1e4, 1e4, 1e4, 1e4]) == [True, False, False, False, True, True]
