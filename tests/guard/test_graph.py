"""A rejected micro-batch gives its memory back at once: no more is alive in it, and in what follows, than in a clean batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from benchmarks.saved_tensors import SavedTensors
from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import StepGuard
from yolo_stable.guard import guard as guard_module
from yolo_stable.guard.graph import free_graph
from yolo_stable.guard.ranks import backward_nan

LIMIT = 1.05
"""Times what a clean batch holds."""
BAD = 2
"""The batch, from 0, that is rejected."""


class Net(nn.Module):
    """Two convolutions with BatchNorm and Dropout; the first block can be checkpointed."""

    def __init__(self, reentrant: bool | None = None) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(0.1))
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Flatten(), nn.Linear(1152, 1))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.second(self.first(x))
        x = x.requires_grad_() if self.reentrant else x  # else that kind of checkpoint has nothing to go back to
        return self.second(checkpoint(self.first, x, use_reentrant=self.reentrant))


def batches(count: int = 6) -> Iterator[Tensor]:
    torch.manual_seed(1)
    for _ in range(count):
        yield torch.rand(4, 1, 16, 16)


def nan_pixel(x: Tensor, guard: StepGuard, loss_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, str]:
    x[0, 0, 0, 0] = float("nan")
    outputs = guard.state.model(x)
    return loss_of(outputs), outputs, ""


def nan_loss(x: Tensor, guard: StepGuard, loss_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, str]:
    outputs = guard.state.model(x)
    return loss_of(outputs) * float("nan"), outputs, ""


def infinite_loss(x: Tensor, guard: StepGuard, loss_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, str]:
    outputs = guard.state.model(x)
    return loss_of(outputs) + float("inf"), outputs, ""


def jump(x: Tensor, guard: StepGuard, loss_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, str]:
    outputs = guard.state.model(x * 1e6)
    return loss_of(outputs), outputs, ""


def bad_label(x: Tensor, guard: StepGuard, loss_of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, str]:
    outputs = guard.state.model(x)
    return loss_of(outputs), outputs, "a label of class 99"


FAULTS = (nan_pixel, nan_loss, infinite_loss, jump, bad_label)


def train(fault: Any, guard: StepGuard, held: SavedTensors, *, accumulate: int = 1) -> None:
    """Train as a plain loop does, with outputs and loss in variables that live until they are set anew."""
    for i, x in enumerate(batches()):
        held.begin()
        if i == BAD:
            loss, outputs, told = fault(x, guard, lambda out: out.square().mean())
            assert not guard.backward(loss, fault=told), "the fault never fired"
        else:
            outputs = guard.state.model(x)
            loss = outputs.square().mean()
            assert guard.backward(loss)
        if (i + 1) % accumulate == 0:
            guard.step()


def guard_for(model: nn.Module, **settings: Any) -> StepGuard:
    return StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), max_jump=100.0, **settings)


def assert_flat(peaks: list[int]) -> None:
    clean = max(peaks[1 : 1 + BAD])
    assert clean > 0
    assert max(peaks) <= LIMIT * clean, f"{[round(peak / clean, 2) for peak in peaks]} times that of a clean batch"


@pytest.mark.parametrize("reentrant", [None, False, True], ids=["plain", "checkpoint", "reentrant"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_no_more_is_alive_than_in_a_clean_batch(fault: Any, accumulate: int, reentrant: bool | None) -> None:
    guard = guard_for(Net(reentrant))
    with SavedTensors() as held:
        train(fault, guard, held, accumulate=accumulate)
    assert guard.counts.rejected_micro_batches == 1
    assert_flat(held.peaks)


@pytest.mark.parametrize("fault", FAULTS)
def test_neither_with_a_loss_scale_and_snapshots(fault: Any) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    guard = guard_for(Net(), scaler=scaler, snapshot_every=2)
    with SavedTensors() as held:
        train(fault, guard, held)
    assert_flat(held.peaks)


def test_without_giving_back_there_would_be_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard_module, "free_graph", lambda *_: False)
    with SavedTensors() as held:
        train(nan_loss, guard_for(Net()), held)
    assert max(held.peaks) > 1.5 * held.peaks[1]


def test_nothing_is_alive_when_the_halt_is_told() -> None:
    model = Net()
    guard = guard_for(model, max_consecutive=2)
    with SavedTensors() as held:
        for x in batches(2):
            assert not guard.backward(model(x).mean() * float("nan"))
        with pytest.raises(TrainingHaltedError):
            guard.backward(model(next(batches())).mean() * float("nan"))
        assert held.now == 0


def test_the_backward_pass_of_several_ranks_gives_back_as_well() -> None:
    model = Net()
    with SavedTensors() as held:
        loss = model(next(batches())).square().mean() * float("nan")
        backward_nan(loss, list(model.parameters()))
        assert held.now == 0


# ---- nothing but the memory changes --------------------------------------------------------------------------------------


def test_gradients_stay_and_no_hook_fires() -> None:
    model, fired = Net(), []
    first: Any = model.first[0].weight
    model(next(batches())).mean().backward()
    before = {name: (p.grad, p.grad.clone()) for name, p in model.named_parameters() if p.grad is not None}
    first.register_hook(lambda gradient: fired.append("gradient"))
    first.register_post_accumulate_grad_hook(lambda p: fired.append("accumulated"))
    node = first.view_as(first).grad_fn.next_functions[0][0]  # as DistributedDataParallel does
    node.register_hook(lambda *_: fired.append("reducer"))
    node.register_prehook(lambda *_: fired.append("reducer, before"))
    loss = model(next(batches())).square().mean()
    with SavedTensors():
        assert free_graph([loss], list(model.parameters()))
    assert not fired
    assert all(model.get_parameter(name).grad is grad for name, (grad, _) in before.items())
    assert all(torch.equal(grad, value) for grad, value in before.values())
    model(next(batches())).mean().backward()
    assert set(fired) == {"gradient", "accumulated", "reducer", "reducer, before"}, "they are there again"


@pytest.mark.parametrize("reentrant", [False, True])
def test_hooks_and_gradients_behind_a_checkpoint_are_left_alone(reentrant: bool) -> None:
    model, fired = Net(reentrant), []
    first: Any = model.first[0].weight
    first.register_hook(lambda gradient: fired.append("gradient"))
    first.register_post_accumulate_grad_hook(lambda p: fired.append("accumulated"))
    x = next(batches())
    assert free_graph([model(x).square().mean()], list(model.parameters()))
    assert not fired
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("preserve", [True, False])
@pytest.mark.parametrize("reentrant", [False, True])
def test_what_checkpointing_draws_and_writes_once_more_is_taken_back(reentrant: bool, preserve: bool) -> None:
    """Its forward pass runs again: BatchNorm is written twice and Dropout draws twice, unless both are put back."""
    model = Net()
    guard = guard_for(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    x = next(batches()).requires_grad_()
    block = checkpoint(model.first, x, use_reentrant=reentrant, preserve_rng_state=preserve)
    loss = model.second(block).square().mean() * float("nan")
    state, drawn = torch.get_rng_state(), random.getstate()
    assert not guard.backward(loss)
    assert torch.equal(torch.get_rng_state(), state)
    assert random.getstate() == drawn
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())


def test_a_loss_without_a_graph_is_rejected_as_ever() -> None:
    assert free_graph([torch.tensor(float("nan"))])
    assert free_graph([torch.tensor(float("nan"), requires_grad=True)])
    guard = guard_for(Net())
    assert not guard.backward(torch.tensor(float("nan")))


def test_the_graph_of_a_penalty_on_gradients_is_given_back() -> None:
    """Second derivatives: the backward pass of the first is a part of the graph."""
    model = Net()
    with SavedTensors() as held:
        x = next(batches()).requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        loss = slope.square().mean() + model(x).mean()
        assert held.now > 0
        assert free_graph([loss], list(model.parameters()))
        assert held.now == 0


def test_it_works_without_gradients_asked_for_and_under_anomaly_detection() -> None:
    model = Net()
    with SavedTensors() as held, torch.autograd.set_detect_anomaly(True):
        loss = model(next(batches())).square().mean() * float("nan")
        with torch.no_grad():
            assert free_graph([loss])
        assert held.now == 0


class Raises(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise ValueError("no way back")


def raising_hook(x: Tensor) -> Tensor:
    x.register_hook(lambda gradient: gradient * 2)  # there is no gradient
    return x


@pytest.mark.parametrize("part", [Raises.apply, raising_hook])
def test_an_error_in_the_graph_harms_nothing(part: Callable[[Tensor], Tensor]) -> None:
    model = Net()
    guard = guard_for(model)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    fired: list[str] = []
    first: Any = model.first[0].weight
    first.register_hook(lambda gradient: fired.append("gradient"))
    loss = model.second(part(model.first(next(batches())))).mean() * float("nan")
    assert not free_graph([loss], list(model.parameters()))
    loss = model.second(part(model.first(next(batches())))).mean() * float("nan")
    assert not guard.backward(loss)
    assert guard.counts.rejected_micro_batches == 1
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers() if "tracked" in name)
    model(next(batches())).mean().backward()
    assert fired == ["gradient"], "hooks are put back after an error too"


def test_a_loss_that_is_rejected_can_still_be_read() -> None:
    model = Net()
    loss = model(next(batches())).square().mean()
    assert free_graph([loss])
    assert float(loss.detach()) > 0
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()
