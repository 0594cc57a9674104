"""What float16 cannot hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from yolo_stable.half import LARGEST, beyond_half, optimizer_tensors, put_back


def test_the_limit_is_that_of_the_type() -> None:
    assert torch.finfo(torch.float16).max == LARGEST
    named = [("held", torch.tensor([LARGEST])), ("not", torch.tensor([-65505.0])), ("whole", torch.tensor([100_000]))]
    assert set(beyond_half([*named, ("none", torch.empty(0)), ("half", torch.ones(2).half())])) == {"not"}


def test_what_is_kept_is_a_copy_in_float32() -> None:
    source = torch.full((2,), 1e6, dtype=torch.bfloat16)
    (kept,) = beyond_half([("a", source)]).values()
    source.zero_()
    assert kept.dtype is torch.float32
    assert bool((kept > 9e5).all())


def test_a_rounded_network_gets_its_numbers_back_and_nothing_else() -> None:
    network: Any = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    with torch.no_grad():
        network[0].weight[0, 0] = 1e5
        network[1].running_var[1] = 2e6
    kept = beyond_half(network.state_dict().items())
    network.half()
    assert network[0].weight[0, 0].isinf()
    put_back(network, {**kept, "gone": torch.ones(1)})
    state = network.state_dict()
    assert (state["0.weight"][0, 0], state["1.running_var"][1]) == (1e5, 2e6)
    assert {name for name, tensor in state.items() if tensor.dtype is torch.float32} == {"0.weight", "1.running_var"}
    assert isinstance(network[0].weight, nn.Parameter)


def test_the_state_of_an_optimizer_is_named() -> None:
    state = {0: {"step": 3, "momentum_buffer": torch.ones(1)}, 1: {}}
    assert [name for name, _ in optimizer_tensors(state)] == ["0/momentum_buffer"]
