"""Whether a model is shared with other ranks is seen by what wraps it; here one process is told that there are two."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from yolo_stable.guard.ranks import Ranks, is_sharded


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 2)
    yield
    monkeypatch.undo()
    dist.destroy_process_group()


def wrapped(model: nn.Module) -> DistributedDataParallel:
    return DistributedDataParallel(model, process_group=dist.new_group([0]))


@pytest.mark.parametrize("given", ["wrapper", "bare", "outside"])
def test_the_group_is_that_of_the_wrapper_wherever_it_is(given: str) -> None:
    bare = nn.Linear(2, 2)
    wrapper = wrapped(bare)
    model = {"wrapper": wrapper, "bare": bare, "outside": nn.Sequential(wrapper, nn.Linear(2, 2))}[given]
    ranks = Ranks(model)
    assert ranks.shared
    assert ranks._group is wrapper.process_group


def test_a_model_that_is_wrapped_after_it_was_looked_at_is_seen_at_the_first_forward_pass() -> None:
    model = nn.Linear(2, 2)
    ranks = Ranks(model)
    assert not ranks.shared
    wrapper = wrapped(model)
    ranks.forward_seen()
    assert ranks.shared
    assert ranks._group is wrapper.process_group


def test_what_somebody_says_counts_whatever_wraps_the_model() -> None:
    model = nn.Linear(2, 2)
    own: Any = dist.new_group([0])
    assert not Ranks(model).shared, "a process group alone says nothing"
    assert Ranks(model, True).shared
    assert Ranks(model, own)._group is own
    wrapper = wrapped(model)
    assert not Ranks(wrapper, False).shared


def test_alone_a_wrapped_model_exchanges_nothing_and_then_as_before() -> None:
    wrapper = wrapped(nn.Linear(2, 2))
    wrapper.require_forward_param_sync, wrapper.require_backward_grad_sync = True, False
    ranks = Ranks(wrapper)
    with ranks.unasked():
        assert (wrapper.require_forward_param_sync, wrapper.require_backward_grad_sync) == (False, False)
    assert (wrapper.require_forward_param_sync, wrapper.require_backward_grad_sync) == (True, False)
    wrapper.require_backward_grad_sync = True
    with pytest.raises(ValueError, match="could not convert"), ranks.unasked():
        float("no number")
    assert wrapper.require_backward_grad_sync


def test_a_model_whose_parameters_are_spread_over_ranks_is_seen_by_them() -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import distribute_module

    mesh = init_device_mesh("cpu", (1,))
    model = distribute_module(nn.Linear(2, 2), mesh)
    assert is_sharded(model)
    assert not is_sharded(nn.Linear(2, 2))
    ranks = Ranks(model)
    assert ranks.shared
    assert ranks._group is mesh.get_group()


def test_numbers_are_asked_of_all_that_share() -> None:
    ranks = Ranks(nn.Linear(2, 2), True)
    assert (ranks.any(True), ranks.any(False)) == (True, False)
    assert (ranks.lowest(-3), ranks.highest(-3), ranks.lowest(5), ranks.highest(5)) == (-3, -3, 5, 5)
    assert ranks._reachable() == torch.device("cpu")


def test_a_wrapper_that_is_no_longer_used_says_nothing() -> None:
    model = nn.Linear(2, 2)
    wrapper = wrapped(model)
    vars(wrapper)["itself"] = wrapper  # so that only a collection finds out that nobody has it
    gc.disable()
    try:
        del wrapper
        assert not Ranks(model).shared
    finally:
        gc.enable()
