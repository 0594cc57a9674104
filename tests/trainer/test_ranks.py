"""The guarded trainer as two processes that share their gradients, on the CPU: something goes wrong on one rank, or on both.

This file is also the program of the two processes: ``python test_trainer_ranks.py RANK MODEL DATA FOLDER`` runs all
scenarios one after the other and writes what it saw; the tests read it. Ultralytics trains with several GPUs only, so the
processes stand in for them: gloo on the host, and the world's size set by hand. All else is the trainer's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from equality import assert_same
from torch import nn
from two_processes import RANKS, join, run_both
from ultralytics.utils.tal import TaskAlignedAssigner

from yolo_stable.autopsy.bundle import read_bundle
from yolo_stable.chaos import Fault
from yolo_stable.errors import TrainingHaltedError
from yolo_stable.provenance.unreadable import Problem
from yolo_stable.runlog.reader import read_events

EPOCHS, BATCHES = 2, 4
NAN = float("nan")


class RaisingLoss:
    """The boxes that are assigned to predictions are NaN in one batch: Ultralytics' loss raises before the guard is asked.

    Args:
        at: Batch of the run, from 0.
    """

    def __init__(self, at: int) -> None:
        self.at = at

    def on(self, base: Any) -> Any:
        own, at = TaskAlignedAssigner.get_targets, self.at
        seen = SimpleNamespace(fired=0, batches=0)

        def broken(*args: Any) -> Any:
            labels, boxes, scores = own(*args)
            seen.fired += 1
            return labels, boxes * NAN, scores

        class Raising(base):
            chaos = seen

            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                TaskAlignedAssigner.get_targets = broken if seen.batches == at else own  # type: ignore[method-assign]
                seen.batches += 1
                return super().preprocess_batch(batch)

        return Raising


class LosingFile:
    """A file cannot be read any more by one rank, in its last batch: the other one has drawn it or will not draw it."""

    def on(self, base: Any) -> Any:
        seen = SimpleNamespace(fired=0, batches=0)

        class Losing(base):
            chaos = seen

            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                batch = super().preprocess_batch(batch)
                seen.batches += 1
                if seen.batches == EPOCHS * BATCHES:
                    for mode, loader in (("train", self.train_loader), ("val", self.test_loader)):
                        assert self.services.files.by_mode[mode].states.set(loader.dataset.im_files[LOST], Problem.GONE)
                        seen.fired += 1
                return batch

        return Losing


LOST = 5
SCENARIOS: dict[str, tuple[dict[int, Any], dict[str, Any]]] = {
    "healthy": ({}, {}),
    "loss raises on rank 1": ({1: RaisingLoss(at=2)}, {}),
    "pixel on rank 1": ({1: Fault("pixel", NAN, at=(2,))}, {}),
    "weight on rank 1": ({1: Fault("weight", NAN, at=(3,))}, {}),
    "weight on rank 0": ({0: Fault("weight", NAN, at=(5,))}, {}),
    "weight on both": ({rank: Fault("weight", NAN, at=(3,)) for rank in RANKS}, {}),
    "first step": ({1: Fault("weight", NAN, at=(0,))}, {}),
    "accumulation": ({1: Fault("weight", NAN, at=(3,))}, {"nbs": 16}),
    "momentum on rank 1": ({1: Fault("momentum", NAN, at=(3,))}, {}),
    "file lost on rank 1": ({1: LosingFile()}, {}),
    "never ends": (
        {1: Fault("pixel", NAN, since=2)},
        {"guard": {"max_consecutive": 1, "max_rollbacks": 1, "lower_precision": False}},
    ),
}
"""For each: what goes wrong on which rank, and changes of the arguments."""


class CpuParallel(nn.parallel.DistributedDataParallel):
    """As on GPUs, but on the host, where no device may be named."""

    def __init__(self, module: nn.Module, device_ids: Any = None, **settings: Any) -> None:
        super().__init__(module, **settings)


def train(rank: int, name: str, arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    from yolo_stable import StableDetectionTrainer

    faults, changes = SCENARIOS[name]
    kind: Any = faults[rank].on(StableDetectionTrainer) if rank in faults else StableDetectionTrainer
    join(rank, folder / f"store {name}", seconds=30)

    class Pair(kind):
        def _setup_ddp(self) -> None:
            """There is one already."""

        def final_eval(self) -> None:
            """Left out: with several ranks it asks for a GPU by name."""

    halted = ""
    calls: list[str] = []
    trainer = Pair(overrides={**arguments, **changes, "name": name})
    trainer.world_size = len(RANKS)
    count_reductions(calls)
    try:
        trainer.train()
    except TrainingHaltedError as error:
        halted = str(error)
    finally:
        dist.destroy_process_group()
    model = trainer.model.module
    return {
        "weights": {k: p.detach() for k, p in model.named_parameters()},
        "finite": all(bool(v.isfinite().all()) for v in model.state_dict().values()),
        "optimizer": trainer.optimizer.state_dict()["state"],
        "counts": trainer.guard.counts.to_dict(),
        "fired": trainer.chaos.fired if rank in faults else 0,
        "halted": halted,
        "reductions": len(calls),
        "folder": str(trainer.save_dir),
        "ema": {k: v for k, v in trainer.ema.ema.state_dict().items()},
    }


def count_reductions(calls: list[str]) -> None:
    """Note every reduction that is asked for by name; those of the gradients are not, they are DistributedDataParallel's."""
    original = getattr(dist.all_reduce, "original", dist.all_reduce)

    def all_reduce(*args: Any, **settings: Any) -> Any:
        calls.append("all_reduce")
        return original(*args, **settings)

    all_reduce.original = original  # type: ignore[attr-defined]
    dist.all_reduce = all_reduce


def main(rank: int, model: str, data: str, folder: Path) -> None:
    nn.parallel.DistributedDataParallel = CpuParallel  # type: ignore[misc]
    arguments = {
        "model": model,
        "data": data,
        "epochs": EPOCHS,
        "imgsz": 64,
        "batch": 8,
        "nbs": 8,
        "optimizer": "SGD",
        "warmup_epochs": 0.0,
        "mosaic": 0.0,
        "val": False,  # but for the last epoch, and saved only then: what is compared is in the trainer
        "save": False,
        "amp": False,
        "device": "cpu",
        "plots": False,
        "verbose": False,
        "project": str(folder),
    }
    for name in SCENARIOS:
        print(name, flush=True)
        torch.save(train(rank, name, arguments, folder), folder / f"{name}.{rank}.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]) -> Path:
    """Run both processes to their end and return the folder with what they saw."""
    folder = tmp_path_factory.mktemp("ranks")
    data = shapes("detect", train=32, val=8)
    run_both(__file__, narrow("detect"), data, folder, seconds=240, ranks=True)
    return folder


@pytest.fixture
def reports(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return what each rank saw in a scenario."""
    return [torch.load(folder / f"{name}.{rank}.pt", weights_only=True) for rank in RANKS]


every_scenario = pytest.mark.parametrize("name", SCENARIOS)


@every_scenario
def test_the_faults_fire_where_they_are(name: str, reports: list[dict[str, Any]]) -> None:
    faults, _ = SCENARIOS[name]
    for rank in RANKS:
        assert bool(reports[rank]["fired"]) is (rank in faults)


@every_scenario
def test_weights_and_optimizer_stay_equal_across_ranks_bit_for_bit(name: str, reports: list[dict[str, Any]]) -> None:
    for key in ("weights", "optimizer", "counts"):
        assert_same(reports[0][key], reports[1][key])
    assert all(report["finite"] for report in reports)
    assert all(bool(v.isfinite().all()) for v in reports[0]["ema"].values())


@every_scenario
def test_what_was_done_about_it(name: str, reports: list[dict[str, Any]]) -> None:
    counts = reports[0]["counts"]
    expected = {
        "healthy": (0, 0),
        "file lost on rank 1": (0, 0),
        "pixel on rank 1": (1, 0),
        "never ends": (4, 1),
        "loss raises on rank 1": (1, 0),
    }.get(name, (1, 1))
    assert (counts["rejected_windows"], counts["rollbacks"]) == expected
    assert [bool(report["halted"]) for report in reports] == 2 * [name == "never ends"]


@every_scenario
def test_ranks_ask_each_other_only_when_something_is_wrong(name: str, reports: list[dict[str, Any]]) -> None:
    rejected = reports[0]["counts"]["rejected_windows"]
    extra = reports[0]["reductions"]
    assert extra == 0 if not rejected else extra >= rejected
    assert extra == reports[1]["reductions"]


@every_scenario
def test_the_first_rank_keeps_the_record(name: str, reports: list[dict[str, Any]]) -> None:
    escalations = [e for e in read_events(Path(reports[0]["folder"]) / "guard.jsonl") if e["event"] == "climb"]
    halts = [e for e in escalations if e["rung"] == "halt"]
    assert len(escalations) - len(halts) == reports[0]["counts"]["rollbacks"]
    assert bool(halts) is (name == "never ends")


def test_a_file_that_only_another_rank_has_lost_is_on_record(folder: Path) -> None:
    run = folder / "file lost on rank 1"
    events = [event for event in read_events(run / "guard.jsonl") if event["event"] == "unreadable"]
    assert [(event["split"], event["why"]) for event in events] == [("train", "is gone"), ("val", "is gone")]
    files = [Path(event["path"]) for event in events]
    assert all(file.is_file() for file in files), "known by name"
    listed = (run / "quarantine.txt").read_text().splitlines()
    assert [line for line in listed if not line.startswith("#")] == [str(files[0])]
    assert len(json.loads((run / "summary.json").read_text())["unreadable"]) == 2


def test_the_rank_that_drew_the_bad_image_names_it(folder: Path) -> None:
    incidents = folder / "pixel on rank 1" / "incidents"
    assert [path.name for path in incidents.iterdir()] == ["0001-rank1"], "the other one knows nothing of it"
    record = read_bundle(incidents / "0001-rank1").incident
    assert (record["kind"], record["rank"], record["autopsy"]["cause"]) == ("micro_batch", 1, "data")
    assert record["autopsy"]["bitwise"]
    assert Path(record["autopsy"]["samples"][0]["path"]).is_file()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
