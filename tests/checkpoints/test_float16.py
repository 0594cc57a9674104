"""What float16 cannot hold."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from ultralytics.utils.torch_utils import convert_optimizer_state_dict_to_fp16

from yolo_stable.checkpoints.float16 import LARGEST, beyond_half, optimizer_tensors, put_back, rounded


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


def test_what_ultralytics_rounds_of_an_optimizer_is_known() -> None:
    keys = ("step", "exp_avg", "exp_avg_sq", "square_avg", "momentum_buffer", "max_exp_avg_sq", "sum", "grad_avg")
    state: dict[int, dict[str, Any]] = {
        0: {key: torch.ones(1) for key in keys},
        1: {"momentum_buffer": torch.ones(1).double()},
    }
    looked_at = {name for name, _ in rounded(optimizer_tensors(state))}
    after = convert_optimizer_state_dict_to_fp16({"state": state})["state"]
    assert looked_at == {name for name, tensor in optimizer_tensors(after) if tensor.dtype is torch.float16}


def test_a_step_counter_is_not_beyond_float16() -> None:
    """After 65,504 steps of Adam every save would find it."""
    parameter = nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    optimizer.state[parameter]["step"].fill_(100_000.0)
    assert beyond_half(rounded(optimizer_tensors(optimizer.state_dict()["state"]))) == {}
