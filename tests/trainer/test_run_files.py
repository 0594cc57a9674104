"""What a run writes before its first step, where, and on which process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from calls import Calls

from yolo_stable.guard import Counts, GuardConfig
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.presets.run_plan import RunPlan
from yolo_stable.trainer import run_files
from yolo_stable.trainer.run_files import arguments_for_workers, open_run_files


class Bare:
    """The services of a trainer that is a stub, as far as files are concerned."""

    def __init__(self, folder: Path, calls: Calls) -> None:
        self.trainer: Any = SimpleNamespace(
            plan=plan_of(), save_dir=folder, args=SimpleNamespace(model="n.pt", epochs=3), resume=None, ddp=False
        )
        incidents = SimpleNamespace(keep_in=calls.to("keep_in"))
        self.services: Any = SimpleNamespace(view=self.trainer, incidents=incidents)

    @property
    def written(self) -> dict[str, Any]:
        return yaml.safe_load((self.trainer.save_dir / "args.yaml").read_text())


def plan_of(injected: tuple[str, ...] = (), **settings: Any) -> RunPlan:
    return RunPlan(
        guard=GuardConfig(max_norm=5.0), trainer=TrainerConfig(**settings), preset="stable", injected=injected
    )


@pytest.fixture
def bare(tmp_path: Path, calls: Calls) -> Bare:
    return Bare(tmp_path, calls)


class TestArguments:
    def test_the_file_has_the_plan_and_ultralytics_own_stay_free_of_it(self, bare: Bare) -> None:
        open_run_files(bare.services)
        assert bare.written == {"model": "n.pt", "epochs": 3, **bare.trainer.plan.to_dict()}
        assert (bare.written["guard"]["max_norm"], bare.written["preset"]) == (5.0, "stable")
        assert vars(bare.trainer.args) == {"model": "n.pt", "epochs": 3}

    def test_faults_that_were_put_in_are_on_record(self, bare: Bare) -> None:
        bare.trainer.plan = plan_of(injected=("pixel nan",))
        open_run_files(bare.services)
        assert bare.written["injected"] == ["pixel nan"]

    def test_workers_are_handed_the_two_keys_in_a_copy(self, bare: Bare) -> None:
        handed = arguments_for_workers(bare.trainer.args, bare.trainer.plan)
        assert vars(handed) == {"model": "n.pt", "epochs": 3, **bare.trainer.plan.to_dict()}
        assert vars(bare.trainer.args) == {"model": "n.pt", "epochs": 3}


class TestIncidents:
    def test_they_are_kept_in_the_folder_of_the_run(
        self, bare: Bare, calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_files, "RANK", 2)
        bare.trainer.plan = plan_of(incidents=3)
        open_run_files(bare.services)
        ((_, folder),) = calls
        assert (folder.folder, folder.keep) == (tmp_path / "incidents", 3)
        assert folder.next_folder() == tmp_path / "incidents" / "0001-rank2"

    @pytest.mark.parametrize(("incidents", "ddp"), [(None, False), (3, True)], ids=["off", "starts workers only"])
    def test_else_nothing_is_looked_into(self, bare: Bare, calls: Calls, incidents: int | None, ddp: bool) -> None:
        bare.trainer.plan, bare.trainer.ddp = plan_of(incidents=incidents), ddp
        open_run_files(bare.services)
        assert calls == []


class TestLog:
    @pytest.mark.parametrize(
        ("rank", "ddp", "arguments", "log"),
        [
            (-1, False, True, True),
            (0, False, True, True),
            (1, False, False, False),
            (-1, True, True, False),  # rank 0 of its workers writes the log
        ],
    )
    def test_which_process_writes(
        self, bare: Bare, rank: int, ddp: bool, arguments: bool, log: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(run_files, "RANK", rank)
        bare.trainer.ddp = ddp
        open_run_files(bare.services).finish("done", "", Counts())
        assert (bare.trainer.save_dir / "args.yaml").exists() is arguments
        assert (bare.trainer.save_dir / "guard.jsonl").exists() is log

    @pytest.mark.parametrize(("resume", "lines"), [(None, 1), (True, 2), ("last.pt", 2)])
    def test_that_of_a_resumed_run_goes_on(self, bare: Bare, resume: Any, lines: int) -> None:
        open_run_files(bare.services).finish("interrupted", "", Counts())
        bare.trainer.resume = resume
        open_run_files(bare.services).finish("done", "", Counts())
        assert len((bare.trainer.save_dir / "guard.jsonl").read_text().splitlines()) == lines


def test_the_address_of_alerts_is_in_no_file_not_even_that_of_the_workers(tmp_path: Path, calls: Calls) -> None:
    """Ultralytics hands arguments to workers by a file; the address goes by the environment."""
    bare = Bare(tmp_path, calls)
    bare.trainer.plan = plan_of(alert="https://host/kEy")
    open_run_files(bare.services)
    assert bare.written["guard"]["alert"] == "https://host/***"
    assert arguments_for_workers(bare.trainer.args, bare.trainer.plan).guard["alert"] == "https://host/***"
