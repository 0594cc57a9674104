from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.utils.torch_utils import ModelEMA

from yolo_stable.trainer import ema as average
from yolo_stable.trainer.ema import AverageUpdate, is_stock, is_usable, kernel_is_right, lerp, pairs_of


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1))


def train(model: nn.Module) -> None:
    with torch.no_grad():
        for tensor in (*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())):
            tensor.add_(torch.randn_like(tensor), alpha=0.1)


@pytest.mark.parametrize("updates", [0, 1300, 50_000], ids=["at first", "around a half", "late"])
def test_it_follows_as_ultralytics_does(updates: int) -> None:
    model = network()
    ours, theirs = ModelEMA(model, updates=updates), ModelEMA(model, updates=updates)
    update, by_kernel = AverageUpdate(), []
    for _ in range(200):
        train(model)
        theirs.update(model)
        update(ours, model)
        by_kernel.append(update._usable)
    assert by_kernel == [True] * 200, "from the first on, or a resumed run would round otherwise"
    stocks: Any = theirs._pairs
    assert [len(part) for part in pairs_of(theirs, model)] == [len(part) for part in stocks]
    assert ours.updates == theirs.updates == updates + 200
    for mine, stock in zip(ours.ema.state_dict().values(), theirs.ema.state_dict().values(), strict=True):
        assert torch.allclose(mine, stock, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("weight", [0.0, 0.0001, 0.25, 0.4999])
def test_with_a_small_weight_it_is_equal_bit_for_bit(weight: float) -> None:
    torch.manual_seed(0)
    averages, tensors = [torch.randn(n) for n in (1, 7, 1000)], [torch.randn(n) for n in (1, 7, 1000)]
    expected = [torch.lerp(a, t, weight) for a, t in zip(averages, tensors, strict=True)]
    before = copy.deepcopy(tensors)
    lerp(averages, tensors, weight)
    assert all(torch.equal(a, e) for a, e in zip(averages, expected, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True)), "the model is only read"


def test_nan_in_the_model_reaches_the_average_as_in_stock() -> None:
    mine = torch.ones(3)
    lerp([mine], [torch.tensor([1.0, float("nan"), float("inf")])], 0.1)
    assert mine[0] == 1.0
    assert not mine[1:].isfinite().any()


class Own(ModelEMA):
    def update(self, model: Any) -> None:
        super().update(model)


def test_an_average_of_the_users_is_asked_to_update_itself() -> None:
    model = network()
    own, replaced = Own(model), ModelEMA(model)
    replaced.update = replaced.update  # type: ignore[method-assign]
    assert is_stock(ModelEMA(model))
    assert not is_stock(own)
    assert not is_stock(replaced)
    calls: list[Any] = []

    class Counter:
        def update(self, model: Any) -> None:
            calls.append(model)

    AverageUpdate()(Counter(), model)
    assert calls == [model]


def test_tensors_that_the_kernel_cannot_take_are_left_to_ultralytics() -> None:
    half, transposed = network().to(torch.bfloat16), network().to(memory_format=torch.channels_last)
    for model in (half, transposed):
        assert not is_usable(*pairs_of(ModelEMA(model), model))
    model = network()
    assert is_usable(*pairs_of(ModelEMA(model), model))


def test_one_that_is_switched_off_stands_still() -> None:
    model, update = network(), AverageUpdate()
    ema = ModelEMA(model)
    for _ in range(2):
        update(ema, model)
    before, ema.enabled = copy.deepcopy(ema.ema.state_dict()), False
    train(model)
    update(ema, model)
    assert ema.updates == 2
    assert all(torch.equal(v, before[k]) for k, v in ema.ema.state_dict().items())


@pytest.mark.parametrize("broken", ["missing", "wrong", "writes"])
def test_a_broken_kernel_is_not_taken(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fired = []

    def kernel(averages: Any, tensors: Any, *args: Any, **settings: Any) -> None:
        fired.append(broken)
        if broken == "missing":
            raise RuntimeError("not here")
        averages[0].lerp_(tensors[0], 0.25)
        (averages if broken == "wrong" else tensors)[0].mul_(1.5)

    assert kernel_is_right()
    monkeypatch.setattr(average.torch, "_fused_sgd_", kernel)
    assert not kernel_is_right()
    assert fired
