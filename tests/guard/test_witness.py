"""One micro-batch under two states: the figures are right, and nothing is different afterwards."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equality import assert_same
from rig import Rig, batches
from torch import Tensor, nn

from yolo_stable.guard.ranks import Ranks
from yolo_stable.guard.snapshot import Snapshot
from yolo_stable.guard.witness import BatchMeasurement, Witness


def rig_with_a_copy() -> tuple[Rig, Snapshot, nn.Module]:
    """Return a run, a snapshot of it from ten steps ago, and the whole model from then."""
    rig = Rig("SGD", snapshot_every=100)
    live = rig.state.live()
    snapshot = Snapshot(live, on_host=False)
    snapshot.fill(0, live, rig.state)
    older = copy.deepcopy(rig.model)
    for x in batches(10):
        rig.step(x)
    return rig, snapshot, older


def loss_under(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: (model(x) - 1.0).square().mean()


def expected(model: nn.Module, x: Tensor) -> BatchMeasurement:
    """Return loss and norm of a copy of the model, drawn with the numbers of now."""
    twin, numbers = copy.deepcopy(model), torch.get_rng_state()
    for parameter in twin.parameters():
        parameter.grad = None
    loss = loss_under(twin, x)()
    loss.backward()
    torch.set_rng_state(numbers)
    return BatchMeasurement(
        loss.item(), nn.utils.get_total_norm([p.grad for p in twin.parameters() if p.grad is not None]).item()
    )


def test_it_measures_each_state_with_the_same_random_numbers_and_leaves_no_trace() -> None:
    rig, snapshot, older = rig_with_a_copy()
    x = batches(1, seed=9)[0]
    rig.guard.backward(loss_under(rig.model, x)())  # gradients of an open window are there as well
    before, kept = rig.everything(), {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
    gradients = [None if p.grad is None else p.grad.clone() for p in rig.model.parameters()]
    places = [p.data_ptr() for p in rig.model.parameters()]
    numbers = torch.get_rng_state()
    asked = Witness(rig.model, loss_under(rig.model, x), rig.guard.ranks)
    for norm in (False, True):
        now, then = asked.measure(None, norm=norm), asked.measure(snapshot.tensors, norm=norm)
        for seen, model in ((now, rig.model), (then, older)):
            right = expected(model, x)
            assert seen.loss == pytest.approx(right.loss)
            assert (seen.norm == pytest.approx(right.norm)) if norm else (seen.norm != seen.norm)
        assert now.loss != then.loss
    assert_same(rig.everything(), before)
    assert_same(snapshot.tensors, kept)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert [p.data_ptr() for p in rig.model.parameters()] == places
    for parameter, gradient in zip(rig.model.parameters(), gradients, strict=True):
        assert gradient is None or torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", [False, True])
def test_a_loop_may_say_how_much_was_found(norm: bool) -> None:
    rig, _, _ = rig_with_a_copy()
    x = batches(1, seed=9)[0]
    loss = loss_under(rig.model, x)
    plain = Witness(rig.model, loss, rig.guard.ranks).measure(None, norm=norm)
    found = Witness(rig.model, lambda: (loss(), torch.tensor(0.25)), rig.guard.ranks).measure(None, norm=norm)
    assert (plain.found, found.found) == (1.0, 0.25)
    assert (plain.loss, plain.whole.loss) == (found.loss, found.loss) == (plain.loss, found.whole.loss / 4)
    if norm:
        assert (plain.norm, 4 * plain.norm) == (found.norm, found.whole.norm)
    assert BatchMeasurement(3.0, found=0.0).whole.loss == float("inf")


def test_after_an_error_the_model_is_as_before() -> None:
    rig, snapshot, _ = rig_with_a_copy()
    before = rig.everything()

    def fails() -> Tensor:
        rig.model(batches(1)[0])
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Witness(rig.model, fails, rig.guard.ranks).measure(snapshot.tensors, norm=False)
    assert_same(rig.everything(), before)


@pytest.mark.parametrize(("ranks", "layer", "hindered"), [(2, "sync", True), (1, "sync", False), (2, "plain", False)])
def test_statistics_over_all_ranks_are_waited_for_by_nobody(ranks: int, layer: str, hindered: bool) -> None:
    model: Any = nn.Sequential(nn.SyncBatchNorm(2) if layer == "sync" else nn.BatchNorm1d(2))
    others = Ranks(model)
    others.shared = ranks > 1
    assert bool(Witness(model, lambda: torch.zeros(()), others).hindrance()) is hindered
