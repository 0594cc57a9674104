"""Runs of earlier versions are resumed, reported, measured and autopsied as their own version would have done."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from yolo_stable import StableDetectionTrainer
from yolo_stable.compare.measure import measure
from yolo_stable.incidents.replay import run as replay
from yolo_stable.report import write_report
from yolo_stable.report.run import read_run

KEPT = sorted((Path(__file__).parent / "old_runs").glob("*.tar.xz"))


@pytest.fixture(params=KEPT, ids=[path.name.partition(".")[0] for path in KEPT])
def old(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return the folder of an interrupted run with one rejected batch in its first epoch, of three epochs."""
    with tarfile.open(request.param) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "run"


def test_its_page_and_its_figures_are_there(old: Path) -> None:
    run, measured = read_run(old), measure(old)
    assert (run.status, run.epochs_planned, run.epochs_done) == ("interrupted", 3, 1)
    assert (run.history.tally.rejected, run.history.tally.causes) == (1, {"data": 1})
    assert (measured.rejections, measured.epochs) == (1, 1)
    assert run.guard["telemetry_every"] == 1
    assert run.summary["incidents_in_all"] == 1
    page = write_report([old]).read_text(encoding="utf-8")
    assert "nan-pixel@1.2" in page


def test_its_incident_is_replayed(old: Path, tmp_path: Path) -> None:
    text = replay(old / "incidents" / "0001", json_file=tmp_path / "answer.json", seconds=60.0)
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert (answer["reproduced"], answer["bitwise"], answer["cause"]) == (True, True, "data")
    assert "NaN pixels" in text


@pytest.mark.usefixtures("without_final_evaluation")
def test_it_is_resumed_exactly_and_counts_on(old: Path, shapes: Callable[..., str]) -> None:
    last = old / "weights" / "last.pt"
    trainer = StableDetectionTrainer(
        overrides={"model": str(last), "resume": True, "data": shapes(train=8, val=4), "epochs": 2}
    )
    trainer.train()
    assert trainer.guard is not None
    assert trainer.plan.trainer.telemetry_every == 1
    assert trainer.guard.counts.rejected_micro_batches == 1, "that of the first part of the run"
    assert read_run(old).status == "done"
    assert json.loads((old / "summary.json").read_text())["causes"] == {"data": 1}
    assert measure(old).rejections == 1
