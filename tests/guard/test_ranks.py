"""Two processes with ``DistributedDataParallel``: a bad micro-batch on one rank, and what both ranks make of it.

This file is also the program of the two processes: ``python test_ranks.py RANK FOLDER`` runs all scenarios one after the
other and writes what it saw; the tests read it.
"""

from __future__ import annotations

import copy
import inspect
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from equality import assert_same
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import RANKS, join, run_both

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import StepGuard
from yolo_stable.guard.ranks import Ranks

WINDOWS = 4
GIVEN = ("wrapper", "bare module")
NAN, INF = float("nan"), float("inf")


@dataclass
class Scenario:
    """What goes wrong in a run of four windows."""

    faults: dict[tuple[int, int, int], str]
    """(rank, window, micro-batch) to what is bad there: its input, its loss, or a part of the loss behind a clamp."""
    accumulate: int = 1
    scaled: bool = False
    no_sync: bool = False
    """Share the gradients only in the last micro-batch of a window."""
    broadcast: bool = False
    """Give rank 0's running statistics to all ranks before each forward pass, which Ultralytics does not."""
    static: bool = False
    """Declare the graph to be the same every time, as Ultralytics does with ``compile=True``."""
    settings: dict[str, Any] = field(default_factory=dict)
    halts: bool = False

    @property
    def bad_windows(self) -> list[int]:
        """The windows that have a fault on any rank."""
        return sorted({window for _, window, _ in self.faults})


SCENARIOS = {
    "rank 1": Scenario({(1, 1, 0): "input"}),
    "rank 0": Scenario({(0, 1, 0): "input"}),
    "both ranks": Scenario({(0, 2, 0): "input", (1, 2, 0): "loss"}),
    "first step": Scenario({(1, 0, 0): "input"}),
    "last step": Scenario({(1, 3, 0): "input"}),
    "infinite loss": Scenario({(1, 1, 0): "loss"}),
    "clamped": Scenario({(1, 1, 0): "clamped"}),
    "first of two": Scenario({(1, 1, 0): "input"}, accumulate=2),
    "second of two": Scenario({(1, 1, 1): "input"}, accumulate=2),
    "rank 0, first of two": Scenario({(0, 1, 0): "input"}, accumulate=2),
    "different micro-batches": Scenario({(0, 2, 0): "input", (1, 2, 1): "clamped"}, accumulate=2),
    "first step of two": Scenario({(1, 0, 0): "loss"}, accumulate=2),
    "shared late": Scenario({(1, 1, 0): "input"}, accumulate=2, no_sync=True),
    "broadcast, rank 0": Scenario({(0, 1, 0): "input"}, accumulate=2, broadcast=True),
    "broadcast, rank 1": Scenario({(1, 1, 1): "input"}, accumulate=2, broadcast=True),
    "static graph": Scenario({(1, 0, 0): "input", (0, 2, 0): "clamped"}, static=True),
    "scaler": Scenario({(1, 1, 0): "input", (0, 2, 0): "clamped"}, scaled=True),
    "halt": Scenario({(1, 1, 0): "input", (0, 2, 0): "input"}, settings={"max_consecutive": 1}, halts=True),
}


class Network(nn.Module):
    """BatchNorm twice, once frozen, and a layer that no forward pass uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.frozen = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.frozen(self.norm(self.first(x)))))

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        self.frozen.eval()
        return self


def loss_of(model: nn.Module, x: Tensor, fault: str | None) -> Tensor:
    if fault == "input":
        x = x.clone()
        x[0, 0] = NAN
    loss = model(x).square().mean()
    if fault == "loss":
        loss = loss * INF
    elif fault == "clamped":  # the gradient of clamp() is zero where its input is NaN
        loss = (loss + NAN).clamp(max=5.0)
    return loss


def parallel(model: nn.Module, scenario: Scenario) -> DistributedDataParallel:
    """Wrap a model as Ultralytics does."""
    known = inspect.signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {buffers: scenario.broadcast}
    return DistributedDataParallel(
        model, find_unused_parameters=not scenario.static, static_graph=scenario.static, **options
    )


def train(rank: int, scenario: Scenario, *, without: list[int]) -> dict[str, Any]:
    """Train; the twin leaves out the windows ``without`` and has no fault."""
    torch.manual_seed(5)
    bare = Network().train()
    model = parallel(bare, scenario)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0) if scenario.scaled else None
    guard = StepGuard(model, optimizer, scaler=scaler, **scenario.settings)
    generator = torch.Generator().manual_seed(100 + rank)
    seen: dict[str, Any] = {"micro_batches": {}, "windows": {}, "undone": {}, "halted": None, "scale": []}
    for window in range(WINDOWS):
        batches = [torch.randn(6, 3, generator=generator) for _ in range(scenario.accumulate)]
        if window in without:
            continue
        before = copy.deepcopy(dict(bare.named_buffers()))
        try:
            for i, x in enumerate(batches):
                fault = None if without else scenario.faults.get((rank, window, i))
                late = scenario.no_sync and i < scenario.accumulate - 1
                with model.no_sync() if late else nullcontext():
                    decision = guard.backward(loss_of(model, x, fault))
                assert guard.last is decision
                seen["micro_batches"][window, i] = decision.verdict.value, decision.reason
            decision = guard.step()
            seen["windows"][window] = decision.verdict.value
        except TrainingHaltedError as error:
            seen["halted"] = str(error)
            seen["windows"][window] = "halted"
        if window in scenario.bad_windows:
            seen["undone"][window] = before, copy.deepcopy(dict(bare.named_buffers()))
        if scaler is not None:
            seen["scale"].append(scaler.get_scale())
        if seen["halted"]:
            break
    hooks = sum(len(p._backward_hooks or ()) for p in model.parameters())
    gradients = sum(p.grad is not None for p in model.parameters())
    return {
        **seen,
        "model": bare.state_dict(),
        "optimizer": optimizer.state_dict(),
        "counts": guard.counts.to_dict(),
        "left over": hooks + gradients,
    }


def run_alone(rank: int, given: str) -> dict[str, Any]:
    """Let rank 1 run the wrapped model forward and backward by itself; then let both take a step together."""
    torch.manual_seed(5)
    bare = Network().train()
    model = parallel(bare, Scenario({}, broadcast=True))
    ranks = Ranks(model if given == "wrapper" else bare)
    twin = copy.deepcopy(bare)
    alone: list[Any] = []
    flags = model.require_forward_param_sync, model.require_backward_grad_sync
    if rank == 1:
        x = torch.randn(6, 3)
        for raises in (False, True):
            with suppress(ZeroDivisionError), ranks.unasked():
                loss = model(x).square().mean()
                gradients = torch.autograd.grad(loss, list(bare.parameters())[:2])
                alone += [loss.item(), *gradients]
                if raises:
                    raise ZeroDivisionError
            expected = twin(x).square().mean()
            alone += [expected.item(), *torch.autograd.grad(expected, list(twin.parameters())[:2])]
    model(torch.randn(6, 3, generator=torch.Generator().manual_seed(rank))).square().mean().backward()
    return {
        "shared": ranks.shared,
        "alone": alone,
        "flags as before": flags
        == (model.require_forward_param_sync, model.require_backward_grad_sync)
        == (True, True),
        "gradients": [p.grad for p in list(bare.parameters())[:2]],
        "gathered": ranks.gather({"rank": rank}),
    }


def main(rank: int, folder: Path) -> None:
    join(rank, folder / "store")
    try:
        for name, scenario in SCENARIOS.items():
            print(name, flush=True)
            report = {
                "run": train(rank, scenario, without=[]),
                "twin": train(rank, scenario, without=scenario.bad_windows),
            }
            torch.save(report, folder / f"{name}.{rank}.pt")
        for given in GIVEN:
            torch.save(run_alone(rank, given), folder / f"alone, {given}.{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, warm_python: str) -> Path:
    """Run both processes to their end and return the folder with what they saw."""
    folder = tmp_path_factory.mktemp("ranks")
    run_both(__file__, folder, seconds=60, python=warm_python)
    return folder


@pytest.fixture
def reports(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return what each rank saw in a scenario."""
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in RANKS]


every_scenario = pytest.mark.parametrize("name", SCENARIOS)


@every_scenario
def test_the_faults_are_seen_where_they_are(name: str, reports: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        verdicts = reports[rank]["run"]["micro_batches"]
        rejected = {(rank, *place) for place, (verdict, _) in verdicts.items() if verdict == "reject_micro_batch"}
        assert rejected == {place for place in SCENARIOS[name].faults if place[0] == rank}
        assert {verdict for verdict, _ in reports[rank]["twin"]["micro_batches"].values()} <= {"backward"}


@every_scenario
def test_both_ranks_reject_the_same_windows(name: str, reports: list[dict[str, Any]]) -> None:
    scenario = SCENARIOS[name]
    windows = {w: "reject_window" if w in scenario.bad_windows else "apply" for w in range(WINDOWS)}
    if scenario.halts:
        last = scenario.bad_windows[-1]
        windows = {**{w: verdict for w, verdict in windows.items() if w < last}, last: "halted"}
    for rank in RANKS:
        assert reports[rank]["run"]["windows"] == windows
        assert (reports[rank]["run"]["halted"] is not None) is scenario.halts
    assert reports[0]["run"]["halted"] == reports[1]["run"]["halted"]


@every_scenario
def test_both_ranks_count_the_same(name: str, reports: list[dict[str, Any]]) -> None:
    scenario = SCENARIOS[name]
    counts = reports[0]["run"]["counts"]
    assert counts == reports[1]["run"]["counts"]
    windows = len(reports[0]["run"]["windows"])
    assert counts["micro_batches"] == windows * scenario.accumulate
    assert counts["rejected_windows"] == len(scenario.bad_windows)
    assert counts["rejected_micro_batches"] == 0  # only one rank knows of them: the window is what counts
    assert counts["applied"] == windows - len(scenario.bad_windows)


@every_scenario
def test_weights_and_optimizer_are_those_of_a_run_without_the_window(name: str, reports: list[dict[str, Any]]) -> None:
    runs = [report["run"] for report in reports]
    weights = [{key: value for key, value in run["model"].items() if "running" not in key} for run in runs]
    assert_same(weights[0], weights[1])
    assert_same(runs[0]["optimizer"], runs[1]["optimizer"])
    if not SCENARIOS[name].halts:  # the twin went on
        for report in reports:
            assert_same(report["run"]["model"], report["twin"]["model"])
            assert_same(report["run"]["optimizer"], report["twin"]["optimizer"])


@every_scenario
def test_running_statistics_are_as_before_the_window_on_each_rank(name: str, reports: list[dict[str, Any]]) -> None:
    for rank in RANKS:
        undone = reports[rank]["run"]["undone"]
        assert sorted(undone) == SCENARIOS[name].bad_windows
        for before, after in undone.values():
            assert_same(before, after)
            assert len(before) == 6


@every_scenario
def test_nothing_is_left_over(name: str, reports: list[dict[str, Any]]) -> None:
    assert [report[which]["left over"] for report in reports for which in ("run", "twin")] == [0, 0, 0, 0]


@pytest.mark.parametrize("given", GIVEN)
def test_one_rank_can_run_the_model_without_the_others(given: str, folder: Path) -> None:
    first, second = (torch.load(folder / f"alone, {given}.{rank}.pt", weights_only=True) for rank in RANKS)
    assert len(second["alone"]) == 12
    for own, expected in ((second["alone"][:3], second["alone"][3:6]), (second["alone"][6:9], second["alone"][9:])):
        assert_same(own, expected)
    for report in (first, second):
        assert report["shared"]
        assert report["flags as before"]
        assert report["gathered"] == [{"rank": 0}, {"rank": 1}]
    assert_same(first["gradients"], second["gradients"], "the step that follows is shared again")


@pytest.mark.parametrize("name", ["scaler"])
def test_the_loss_scale_stays_the_same_on_both_ranks(reports: list[dict[str, Any]], name: str) -> None:
    """On the other rank a bad micro-batch cannot be told from an overflow: the scale backs off on both, until it is believed."""
    assert SCENARIOS[name].scaled
    assert reports[0]["run"]["scale"] == reports[1]["run"]["scale"] == [1024.0, 512.0, 256.0, 1024.0]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
