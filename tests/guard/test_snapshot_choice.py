"""Two processes with ``DistributedDataParallel``: whatever is ruined on one of them, both go back to the same step.

This file is also the program of the two processes: ``python test_snapshot_choice.py RANK FOLDER`` runs all stories one after the
other and writes what it saw; the tests read it.
"""

from __future__ import annotations

import copy
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from equality import assert_same
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import RANKS, join, run_both

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import Escalation, GuardConfig, StepGuard
from yolo_stable.guard.ranks import Ranks
from yolo_stable.guard.snapshot import SnapshotRing
from yolo_stable.guard.snapshot_choice import choose, copies
from yolo_stable.guard.state import TrainingState

WINDOWS = 24
EVERY = 4
NAN = float("nan")


@dataclass
class Story:
    """What is ruined in a run of 24 windows, and where both ranks go back to."""

    ruined: dict[tuple[int, int, int], tuple[str, float]] = field(default_factory=dict)
    """(rank, window, micro-batch) to a tensor and what one number of it becomes."""
    loud: dict[int, set[int]] = field(default_factory=dict)
    """The windows in which the loss of a rank is a hundredfold."""
    to_steps: list[int] = field(default_factory=list)
    accumulate: int = 1
    settings: dict[str, Any] = field(default_factory=dict)
    halts: bool = False
    backs_off: bool = False


WEIGHT = "model/first.weight"
LOUD = {"max_loss_rise": 3.0, "patience": 6}
STORIES = {
    "healthy": Story(),
    "healthy, accumulated": Story(accumulate=3, settings=LOUD),
    "rank 1": Story({(1, 9, 0): (WEIGHT, NAN)}, to_steps=[8]),
    "rank 0": Story({(0, 9, 0): (WEIGHT, NAN)}, to_steps=[8]),
    "both ranks": Story({(0, 9, 0): (WEIGHT, NAN), (1, 9, 0): ("model/last.bias", NAN)}, to_steps=[8]),
    "first step": Story({(1, 0, 0): (WEIGHT, NAN)}, to_steps=[0]),
    "within a window": Story({(1, 9, 1): (WEIGHT, NAN)}, to_steps=[8], accumulate=2),
    "momentum": Story({(0, 10, 0): ("optimizer/0/momentum_buffer", NAN)}, to_steps=[8]),
    # Found by the audit of one rank when the other one takes its copy of step 12: that one is not common.
    "only the audit sees it": Story({(1, 11, 0): ("model/norm.running_var", 1e30)}, to_steps=[8]),
    # Copies follow each other faster after the first time: at steps 11 and 14.
    "ruined twice": Story({(1, 9, 0): (WEIGHT, NAN), (0, 15, 0): (WEIGHT, NAN)}, to_steps=[8, 14]),
    "a loss that diverges on one rank": Story(loud={1: set(range(9, 16))}, to_steps=[8], settings=LOUD, backs_off=True),
    # Suspicious on one rank whenever a copy is due, and not for long enough to be an alarm; then something is ruined.
    "suspicious on one rank": Story(
        {(0, 18, 0): (WEIGHT, NAN)}, loud={1: {7, 11, 15}}, to_steps=[4], settings={**LOUD, "patience": 12}
    ),
    # So often that no copy that is kept is trusted by both: the oldest one.
    "always suspicious on one rank": Story(
        {(0, 22, 0): (WEIGHT, NAN)}, loud={1: {7, 11, 15, 19}}, to_steps=[12], settings=LOUD
    ),
    "for ever": Story(
        {(1, window, 0): (WEIGHT, NAN) for window in range(9, WINDOWS)},
        to_steps=[8, 8, 4, 4],
        settings={"max_rollbacks": 3},
        halts=True,
    ),
}


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


def train(rank: int, story: Story, calls: list[str]) -> dict[str, Any]:
    torch.manual_seed(5)
    bare = Network()
    model = DistributedDataParallel(bare, broadcast_buffers=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    escalations: list[Escalation] = []
    settings = {"snapshot_every": EVERY, "ramp_steps": 5, **story.settings}
    own, loudness = bare.first.weight.data_ptr(), 1.0

    def again() -> torch.Tensor:
        """It is the weights of now that are loud: under others the same batch is not."""
        return torch.tensor(loudness if bare.first.weight.data_ptr() == own else 1.0)

    asked = {"again": again} if story.backs_off else {}  # else a suspicion is never cleared
    guard = StepGuard(model, optimizer, on_escalation=escalations.append, **asked, **settings)
    generator = torch.Generator().manual_seed(100 + rank)
    seen: dict[str, Any] = {"verdicts": [], "weights": [], "collectives": [], "factors": [], "halted": "", "ruined": 0}
    for window in range(WINDOWS):
        calls.clear()
        try:
            for m in range(story.accumulate):
                if (rank, window, m) in story.ruined:
                    name, value = story.ruined[rank, window, m]
                    with torch.no_grad():
                        guard.state.live()[name].view(-1)[0] = value
                    seen["ruined"] += 1
                x = torch.randn(6, 3, generator=generator)
                loss = (model(x) - 1.0).square().mean()
                loudness = 100.0 if window in story.loud.get(rank, ()) else 1.0
                guard.backward(loss, {"loss": loss.detach() * loudness})
            guard.step()
            guard.settle()
        except TrainingHaltedError as error:
            seen["halted"] = str(error)
        assert guard.last is not None
        assert guard.recovery is not None
        seen["verdicts"].append(guard.last.verdict.value)
        seen["weights"].append(copy.deepcopy({k: v for k, v in bare.state_dict().items() if "running" not in k}))
        seen["collectives"].append(len(calls))
        seen["factors"].append(guard.recovery.lr_backoff.factor)
        if seen["halted"]:
            break
    for escalation in escalations:
        assert escalation.reason
    facts = [
        {k: v for k, v in asdict(escalation).items() if k not in {"reason", "culprits"}} for escalation in escalations
    ]
    return {
        **seen,
        "escalations": [{**fact, "level": fact["level"].value} for fact in facts],
        "optimizer": optimizer.state_dict(),
        "counts": guard.counts.to_dict(),
        "model": bare.state_dict(),
    }


def main(rank: int, folder: Path) -> None:
    join(rank, folder / "store")
    calls: list[str] = []
    for name in ("all_reduce", "broadcast", "all_gather", "barrier", "reduce", "all_gather_object"):
        original = getattr(dist, name)
        setattr(dist, name, lambda *a, _o=original, _n=name, **k: (calls.append(_n), _o(*a, **k))[1])
    try:
        for name, story in STORIES.items():
            print(name, flush=True)
            torch.save(train(rank, story, calls), folder / f"{name}.{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, warm_python: str) -> Path:
    """Run both processes to their end, or kill them when they wait for each other; return the folder with what they saw."""
    folder = tmp_path_factory.mktemp("choice")
    run_both(__file__, folder, seconds=90, python=warm_python)
    return folder


@pytest.fixture
def reports(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return what each rank saw in a story."""
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in RANKS]


every_story = pytest.mark.parametrize("name", STORIES)


@every_story
def test_the_faults_were_put_where_they_should_be(name: str, reports: list[dict[str, Any]]) -> None:
    windows = len(reports[0]["verdicts"])
    for rank in RANKS:
        assert reports[rank]["ruined"] == sum(r == rank and w < windows for r, w, _ in STORIES[name].ruined)


@every_story
def test_both_ranks_go_back_together_to_the_same_step(name: str, reports: list[dict[str, Any]]) -> None:
    # What was wrong is known to the rank that it was wrong on.
    known = [[{**escalation, "damage": ()} for escalation in report["escalations"]] for report in reports]
    assert known[0] == known[1]
    assert [escalation["to_step"] for escalation in reports[0]["escalations"]] == STORIES[name].to_steps
    assert reports[0]["verdicts"] == reports[1]["verdicts"]
    assert reports[0]["counts"] == reports[1]["counts"]
    assert reports[0]["factors"] == reports[1]["factors"], "another backoff would be another learning rate"
    assert (min(reports[0]["factors"]) < 1.0) is STORIES[name].backs_off, "a ruined number says nothing about the rate"


@every_story
def test_the_weights_are_the_same_on_both_when_training_goes_on(name: str, reports: list[dict[str, Any]]) -> None:
    for window, (first, second) in enumerate(zip(*(report["weights"] for report in reports), strict=True)):
        damaged = any(w == window for _, w, _ in STORIES[name].ruined)
        went_back = reports[0]["verdicts"][window] == "reject_window"
        if not damaged or went_back:
            assert_same(first, second, f"window {window}")
    assert_same(reports[0]["optimizer"], reports[1]["optimizer"])
    for report in reports:
        assert all(bool(t.isfinite().all() and t.abs().max() < 1e6) for t in report["model"].values())


@every_story
def test_a_healthy_window_costs_no_collective(name: str, reports: list[dict[str, Any]]) -> None:
    for report in reports:
        for verdict, collectives in zip(report["verdicts"], report["collectives"], strict=True):
            assert (collectives == 0) is (verdict in {"apply", "clip"})
    if not STORIES[name].to_steps:
        assert sum(reports[0]["collectives"]) == 0
        assert len(reports[0]["verdicts"]) == WINDOWS


@every_story
def test_both_halt_or_neither(name: str, reports: list[dict[str, Any]]) -> None:
    assert [bool(report["halted"]) for report in reports] == [STORIES[name].halts] * 2
    if STORIES[name].halts:  # each says what it knows
        assert "another rank asks for it; 3 rollbacks did not help" in reports[0]["halted"]
        assert "model/first.weight nan; 3 rollbacks did not help" in reports[1]["halted"]
    assert [escalation["level"] for escalation in reports[0]["escalations"]].count("halt") == STORIES[name].halts


# ---- a single rank --------------------------------------------------------------------------------------------------------


def test_a_single_rank_asks_nobody() -> None:
    model = nn.Linear(1, 1)
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=1.0))
    ring = SnapshotRing(state, 2, "auto")
    alone = Ranks(model)
    assert choose(ring, 5, alone) is None
    for step in (1, 2):
        ring.take(step, state.live())
    assert choose(ring, 2, alone) is ring.newest
    assert choose(ring, 1, alone) is ring.oldest
    assert choose(ring, 0, alone) is ring.oldest


# ---- two ranks as two threads -----------------------------------------------------------------------------------------------


def chosen_by(*steps: tuple[int, ...], at: int) -> list[Any]:
    """Return the step that each rank chooses of those that it has snapshots of, or its error; negative ones are doubted."""
    said, meeting = [0] * len(steps), threading.Barrier(len(steps), timeout=20)

    class OneOfThem(Ranks):
        def __init__(self, number: int, model: nn.Module) -> None:
            super().__init__(model, distributed=False)
            self.shared, self.number = True, number

        def lowest(self, step: int) -> int:
            said[self.number] = step
            meeting.wait()
            found = min(said)
            meeting.wait()
            return found

        def any(self, wish: bool) -> bool:
            return bool(self.highest(int(wish)))

    def choice(number: int) -> Any:
        model = nn.Linear(1, 1)
        state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=1.0))
        ring = SnapshotRing(state, 4, "auto")
        for step in steps[number]:
            ring.take(abs(step), state.live()).trusted = step >= 0
        try:
            snapshot = choose(ring, at, OneOfThem(number, model))
        except TrainingHaltedError as error:
            return error
        return None if snapshot is None else snapshot.step

    with ThreadPoolExecutor(len(steps)) as threads:
        return list(threads.map(choice, range(len(steps))))


@pytest.mark.parametrize(
    ("first", "second", "at", "step"),
    [
        ((4, 8, 12), (4, 8, 12), 12, 12),
        ((4, 8, 12), (4, 8), 12, 8),
        ((4, 8, 12), (4, 8, 12), 11, 8),
        ((4, -8, 12), (4, 8), 12, 4),
        ((-4, 8), (4, -8), 8, 4),
        ((12,), (4, 8, 12), 12, 12),
        ((-12,), (4, 8, 12), 12, 12),
        ((), (), -1, None),
    ],
)
def test_two_ranks_choose_the_newest_that_both_have_and_trust_or_the_oldest_that_both_have(
    first: tuple[int, ...], second: tuple[int, ...], at: int, step: int | None
) -> None:
    assert chosen_by(first, second, at=at) == [step, step]
    assert chosen_by(second, first, at=at) == [step, step]


@pytest.mark.parametrize(
    ("first", "second"),
    [((4, 8), (5, 9)), ((4, 8), ()), ((4,), (8,)), ((-4, -8), (-3, -6)), ((4, 8, 12), (10,))],
    ids=["apart", "one has none", "one each", "doubted", "within"],
)
def test_ranks_without_a_common_snapshot_say_so_together_and_put_nothing_back(
    first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    found = chosen_by(first, second, at=12)
    for steps, error in zip((first, second), found, strict=True):
        assert isinstance(error, TrainingHaltedError)
        own = ", ".join(str(abs(step)) for step in steps) or "none"
        assert f"no snapshot in common, so none was restored: this rank has those of steps {own};" in str(error)


def test_several_ranks_keep_enough_to_reach_behind_a_streak() -> None:
    ranks = Ranks(nn.Linear(1, 1))
    watched = GuardConfig(snapshot_every=16, max_loss_rise=4.0, patience=32)
    assert copies(watched, ranks) == 2
    ranks.shared = True
    assert copies(watched, ranks) == 4
    assert copies(GuardConfig(snapshot_every=16, snapshots=7, max_loss_rise=4.0), ranks) == 7
    assert copies(GuardConfig(snapshot_every=16), ranks) == 2


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
