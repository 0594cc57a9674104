from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from yolo_stable.autopsy import locate, untouched
from yolo_stable.guard.untouched import device_of


def network() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[1].eval()
    model(torch.randn(5, 3)).sum().backward()
    return model


def mess_up(model: nn.Module) -> None:
    random.random()
    np.random.rand()
    model.train()
    model(torch.randn(5, 3)).sum().backward()
    for buffer in model.buffers():
        buffer.fill_(float("nan")) if buffer.is_floating_point() else buffer.add_(7)
    model[1]._buffers["running_mean"] = torch.zeros(4)  # pyright: ignore[reportIndexIssue]
    model[1].register_buffer("new", torch.ones(1))  # pyright: ignore[reportIndexIssue]
    torch.set_grad_enabled(False)
    torch.set_autocast_enabled("cpu", True)


def seed() -> None:
    random.seed(4)
    np.random.seed(5)
    torch.manual_seed(6)


def drawn() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_everything_is_as_before(error: type[BaseException] | None) -> None:
    model = network()
    seed()
    expected = drawn()
    seed()
    with torch.no_grad():
        model[1].running_var[2] = float("nan")  # pyright: ignore[reportIndexIssue]
    buffers = [(name, id(b), b.data_ptr(), b.clone()) for name, b in model.named_buffers()]
    gradients = [(p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
    flags = [m.training for m in model.modules()]
    try:
        with untouched(model):
            assert all(p.grad is None for p in model.parameters())
            mess_up(model)
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        assert error is not None
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert flags == [m.training for m in model.modules()]
    assert [name for name, _ in model.named_buffers()] == [name for name, *_ in buffers]
    for (_, b), (_, identity, pointer, value) in zip(model.named_buffers(), buffers, strict=True):
        assert (id(b), b.data_ptr()) == (identity, pointer)
        assert b.numpy().tobytes() == value.numpy().tobytes()
    for p, (grad, value) in zip(model.parameters(), gradients, strict=True):
        assert p.grad is grad
        assert torch.equal(grad, value)
    assert drawn() == expected


def test_locating_leaves_no_trace_and_no_hook() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad for p in model.parameters()]
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    first = locate(model, torch.ones(5, 3), Tensor.sum)
    second = locate(model, torch.ones(5, 3), Tensor.sum)
    assert first.digests == second.digests
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is grad for p, grad in zip(model.parameters(), gradients, strict=True))
    assert not torch.nn.modules.module._has_any_global_hook()


def test_gradients_that_are_being_accumulated_are_set_aside() -> None:
    """The second of two micro-batches is located: what the first left in `.grad` neither counts nor changes."""
    model = nn.Linear(2, 2)
    model(torch.full((1, 2), 3.0)).sum().backward()
    assert model.weight.grad is not None
    model.weight.grad[0, 0] = float("nan")
    found = locate(model, torch.ones(1, 2), Tensor.sum)
    assert found.healthy
    assert found.bad_gradients == ()
    assert bool(model.weight.grad[0, 0] != model.weight.grad[0, 0])
    assert float(model.weight.grad[1, 1]) == 3.0


def test_the_device_is_that_of_the_first_parameter_or_else_of_the_first_buffer() -> None:
    with_buffer = nn.Module()
    with_buffer.register_buffer("mean", torch.zeros(2, device="meta"))
    models = (nn.Linear(2, 2, device="meta"), nn.Sequential(nn.Linear(2, 2), with_buffer), with_buffer, nn.Module())
    assert [device_of(model).type for model in models] == ["meta", "cpu", "meta", "cpu"]
