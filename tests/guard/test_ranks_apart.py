"""Two processes in one process group, and models of which only some are trained by both.

This file is also the program of the two processes: ``python test_ranks_apart.py RANK FOLDER`` tells all stories one after the
other. A collective that one rank alone asks for ends in an error after some seconds: it would wait for ever otherwise.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import RANKS, join, run_both

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import StepGuard

NAN = float("nan")
SETTINGS: dict[str, Any] = {"snapshot_every": 2, "max_consecutive": 2, "max_rollbacks": 2, "ramp_steps": 2}
calls: list[str] = []


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def run(model: nn.Module, guarded: nn.Module, bad: set[int], windows: int = 8, **settings: Any) -> dict[str, Any]:
    """Train with bad inputs in some windows, and tell what the guard did."""
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(guarded.parameters(), lr=0.01, momentum=0.9)
    guard = StepGuard(guarded, optimizer, **{**SETTINGS, **settings})
    calls.clear()
    verdicts, halted = [], ""
    for window in range(windows):
        x = torch.full((4, 3), NAN) if window in bad else torch.randn(4, 3)
        try:
            guard.backward(model(x).square().mean())
            verdicts.append(guard.step().verdict.value)
            guard.settle()
        except TrainingHaltedError as error:
            halted = str(error)
            break
    return {"verdicts": verdicts, "halted": halted, "rollbacks": guard.counts.rollbacks, "calls": list(calls)}


def ddp(module: nn.Module, **options: Any) -> DistributedDataParallel:
    """Wrap a model as Ultralytics does: running statistics are each rank's own."""
    known = inspect.signature(DistributedDataParallel).parameters
    buffers: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False
    }
    return DistributedDataParallel(module, **buffers, **options)


def alone(rank: int, **settings: Any) -> Any:
    """Only rank 1 trains at all; its model is not wrapped, and everything goes wrong that can."""
    return run(model := Network(), model, set(range(3, 30)), windows=30, **settings) if rank == 1 else None


def both_but_not_together(rank: int) -> Any:
    """Each rank trains a model of its own, as in a search for hyperparameters."""
    return run(model := Network(), model, {2 + rank, 5})


def beside_a_wrapped_one(rank: int) -> Any:
    """A wrapped model lives in the same process; only rank 0 trains the other one."""
    wrapped, other = ddp(Network()), Network()
    seen = run(other, other, {3, 4, 5}) if rank == 0 else None
    return {"other": seen, "wrapped": run(wrapped, wrapped, {3} if rank == 1 else set())}


def wrapped_in_a_group_of_one(rank: int) -> Any:
    groups = [dist.new_group([each]) for each in RANKS]
    model = ddp(Network(), process_group=groups[rank])
    return run(model, model, {3, 4, 5}) if rank == 1 else None


def bare_module_of_a_wrapped_one(rank: int) -> Any:
    model = ddp(Network())
    return run(model, model.module, {3} if rank == 1 else set())


def wrapped_within(rank: int) -> Any:
    model = Network()
    model.inner = ddp(model.inner)  # type: ignore[assignment]
    return run(model, model, {3} if rank == 1 else set())


def wrapped_after_the_guard(rank: int) -> Any:
    torch.manual_seed(1)
    bare = Network()
    guard = StepGuard(bare, torch.optim.SGD(bare.parameters(), lr=0.01), **SETTINGS)
    model = ddp(bare)
    guard.backward(model(torch.full((4, 3), NAN if rank == 1 else 1.0)).square().mean())
    return {"verdicts": [guard.step().verdict.value], "halted": ""}


def unwrapped_again(rank: int) -> Any:
    """Behind a training together, rank 1 goes on alone with what was inside."""
    model = ddp(Network())
    bare = model.module
    del model
    return run(bare, bare, {3, 4, 5}) if rank == 1 else None


def exchanged_by_hand(rank: int) -> Any:
    """Hooks average the gradients, and the caller says so."""
    torch.manual_seed(2)
    model = Network()
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(lambda p: dist.all_reduce(p.grad, op=dist.ReduceOp.SUM))
    return run(model, model, {3} if rank == 1 else set(), distributed=True)


def denied(rank: int) -> Any:
    """A wrapped model of which the caller says that it is trained alone; its own reductions are its own affair."""
    model = ddp(Network())
    with model.no_sync():
        return run(model, model, {3, 4, 5}, distributed=False) if rank == 1 else None


STORIES: dict[str, Callable[[int], Any]] = {
    story.__name__: story
    for story in (
        alone,
        both_but_not_together,
        beside_a_wrapped_one,
        wrapped_in_a_group_of_one,
        bare_module_of_a_wrapped_one,
        wrapped_within,
        wrapped_after_the_guard,
        unwrapped_again,
        exchanged_by_hand,
        denied,
    )
}


def main(rank: int, folder: Path) -> None:
    join(rank, folder / "store")
    reduce = dist.all_reduce
    dist.all_reduce = lambda *a, **k: (calls.append("all_reduce"), reduce(*a, **k))[1]  # type: ignore[assignment]
    try:
        for name, story in STORIES.items():
            print(name, flush=True)
            torch.save(story(rank), folder / f"{name}.{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, warm_python: str) -> Callable[[str], list[Any]]:
    """Run both processes to their end, or kill them when they wait for each other; return what each saw in a story."""
    folder = tmp_path_factory.mktemp("apart")
    run_both(__file__, folder, seconds=90, python=warm_python)
    return lambda name: [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in RANKS]


def test_a_guard_on_one_rank_rejects_goes_back_and_halts_without_the_other(seen: Any) -> None:
    idle, report = seen("alone")
    assert idle is None
    assert report["rollbacks"] == 2
    assert "rollbacks did not help" in report["halted"]
    assert report["calls"] == []


def test_two_guards_of_two_models_ask_each_other_nothing(seen: Any) -> None:
    for rank, report in enumerate(seen("both_but_not_together")):
        empty = [window for window, verdict in enumerate(report["verdicts"]) if verdict == "empty"]
        assert empty == [2 + rank, 5]
        assert report["calls"] == []


def test_of_two_models_only_the_wrapped_one_is_shared(seen: Any) -> None:
    first, second = seen("beside_a_wrapped_one")
    assert first["other"]["rollbacks"] == 1
    assert first["other"]["calls"] == []
    for report in (first["wrapped"], second["wrapped"]):
        assert report["verdicts"].index("reject_window") == 3
        assert report["calls"]


@pytest.mark.parametrize("name", ["wrapped_in_a_group_of_one", "unwrapped_again", "denied"])
def test_a_model_that_nobody_else_trains_is_not_shared(name: str, seen: Any) -> None:
    report = seen(name)[1]
    assert report["rollbacks"] == 1
    assert report["calls"] == []


@pytest.mark.parametrize(
    "name", ["bare_module_of_a_wrapped_one", "wrapped_within", "wrapped_after_the_guard", "exchanged_by_hand"]
)
def test_a_model_that_both_train_is_shared_however_it_is_given(name: str, seen: Any) -> None:
    for report in seen(name):
        assert report["verdicts"].count("reject_window") == 1
        assert report["halted"] == ""


@pytest.mark.parametrize("said", [None, True])
def test_a_group_of_one_process_is_nobody_to_ask(said: bool | None, tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=(tmp_path / "store").as_uri(), rank=0, world_size=1)
    try:
        model = ddp(Network())
        assert run(model, model, {3, 4, 5}, distributed=said)["calls"] == []
        assert not StepGuard(model, torch.optim.SGD(model.parameters(), lr=1.0), distributed=said).ranks.shared
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
