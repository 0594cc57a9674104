"""Witnesses: which batches are kept, what they cost, and that looking at two states with them leaves nothing behind."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from equality import assert_same
from torch import Tensor, nn

from yolo_stable.trainer import witnesses
from yolo_stable.trainer.witnesses import MOST, Witnesses


class Network(nn.Module):
    """As Ultralytics' are asked: given a batch it returns loss and items; it draws and it writes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))

    def forward(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        random.random()
        np.random.rand()
        error = (self.layers(batch["img"]).square().mean(dim=(1, 2, 3)) - batch["aim"]).square()
        return torch.stack([error.sum(), error.sum()]), {"error": error.sum().detach()}


def batch(size: int = 8, value: float = 1.0) -> dict[str, Any]:
    noise = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    return {"img": noise * value, "aim": torch.ones(2), "im_file": ["a.jpg", "b.jpg"]}


def seen(count: int, **size: int) -> Witnesses:
    kept = Witnesses()
    for number in range(1, count + 1):
        kept.see(batch(value=float(number), **size), number, count)
    return kept


@pytest.mark.parametrize(("of", "kept"), [(1, 1), (2, 2), (8, 8), (9, 5), (16, 8), (17, 6), (1000, 8)])
def test_they_are_spread_over_the_epoch(of: int, kept: int) -> None:
    assert len(seen(of)) == kept <= MOST


def test_those_of_the_next_epoch_take_their_place() -> None:
    kept, network = seen(4), Network()
    before = kept.losses(network)
    for number in range(1, 5):
        kept.see(batch(value=-float(number)), number, 4)
    assert len(kept) == 4
    assert kept.losses(network) != before


def test_they_are_copies() -> None:
    kept, network, first = Witnesses(), Network(), batch()
    kept.see(first, 1, 1)
    before = kept.losses(network)
    first["img"].zero_()
    first["aim"].fill_(100.0)
    assert kept.losses(network) == before


def test_they_take_no_more_memory_than_they_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(witnesses, "MEMORY", 3 * 2 * 3 * 64 * 64 * 4 + 100)
    assert len(seen(8, size=64)) == 3
    monkeypatch.setattr(witnesses, "MEMORY", 1)
    assert len(seen(8, size=64)) == 1, "one is kept anyway"


def test_without_any_there_is_no_loss() -> None:
    kept = seen(3)
    kept.clear()
    assert (len(kept), kept.losses(Network())) == (0, [])


def test_the_loss_is_that_of_training_whatever_the_running_statistics_are() -> None:
    kept, network = seen(3), Network()
    torch.manual_seed(5)
    losses = kept.losses(network.eval())
    torch.manual_seed(5)
    twin = Network()
    torch.manual_seed(5)
    with torch.no_grad():
        assert [one.loss for one in losses] == pytest.approx(
            [float(twin(batch(value=float(i)))[0].sum()) for i in (1, 2, 3)], rel=1e-6
        )
    norm: Any = network.layers[1]
    norm.running_var.fill_(1e7)
    torch.manual_seed(5)
    assert kept.losses(network) == losses


def test_another_state_is_looked_at_by_its_tensors() -> None:
    kept, network, other = seen(3), Network(), Network()
    with torch.no_grad():
        for tensor in other.parameters():
            tensor.mul_(3.0)
    tensors = {**dict(other.named_parameters()), **dict(other.named_buffers())}
    assert kept.losses(network, tensors) == kept.losses(other)
    assert kept.losses(network, tensors) != kept.losses(network)
    some = {"layers.0.bias": tensors["layers.0.bias"]}
    assert kept.losses(network, some) not in (kept.losses(other), kept.losses(network))


@pytest.mark.parametrize("fails", [False, True], ids=["done", "raises"])
def test_nothing_of_it_stays(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, network = seen(3), Network()
    network.layers[1].eval()
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    if fails:
        monkeypatch.setattr(Network, "forward", lambda *_: torch.rand(1) + torch.rand(2, 3) @ torch.rand(2))

    def everything() -> Any:
        numpy = [v.tolist() if isinstance(v, np.ndarray) else v for v in np.random.get_state(legacy=True)]
        flags = [module.training for module in network.modules()]
        gradients = [parameter.grad for parameter in network.parameters()]
        state = dict(network.state_dict())
        return copy.deepcopy(
            [state, gradients, flags, vars(network).keys() - {"_"}, torch.get_rng_state(), random.getstate(), numpy]
        )

    before = everything()
    if fails:
        with pytest.raises(RuntimeError):
            kept.losses(network, {"layers.0.bias": torch.ones(4)})
    else:
        kept.losses(network, {"layers.0.bias": torch.ones(4)})
    after = everything()
    assert list(before.pop(3)) == list(after.pop(3))
    assert_same(after, before)
