from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from yolo_stable.autopsy.report import AutopsyReport
from yolo_stable.compare.measure import measure
from yolo_stable.guard import Counts, Decision, Escalation, EscalationLevel, GuardConfig, GuardVerdict
from yolo_stable.presets.run_plan import RunPlan
from yolo_stable.report.figures import figures
from yolo_stable.report.run import read_run
from yolo_stable.runlog.summary import Summary
from yolo_stable.runlog.writer import RunLog

BAD = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH, reason="loss nan")
BACK = Escalation(
    level=EscalationLevel.ROLL_BACK, reason="a weight is nan", culprits=(), step=40, to_step=32, lr_factor=1.0, lost=8
)
PLAN = RunPlan(guard=GuardConfig())


def part(folder: Path, *, resumed: bool, before: int) -> RunLog:
    log = RunLog(folder, resumed=resumed, write=True)
    log.start(PLAN, epochs_before=before)
    return log


def rejected(log: RunLog, epoch: int, cause: str) -> None:
    log.batch_files(["a.jpg"])
    log.rejection(BAD, (epoch, 3, 1, 4), 0)
    log.incident("micro_batch", AutopsyReport(cause=cause), epoch, None)


def written(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "summary.json").read_text())


def test_a_resumed_run_has_the_same_figures_everywhere(tmp_path: Path) -> None:
    """Killed in its second epoch and resumed after the first: the second is done again, and goes well but for a rollback."""
    killed = part(tmp_path, resumed=False, before=0)
    rejected(killed, 1, "data")
    killed.left_out("a.jpg")
    rejected(killed, 2, "layer")
    assert killed._log is not None
    killed._log.close()
    resumed = part(tmp_path, resumed=True, before=1)
    resumed.escalation(BACK, 2)
    resumed.unreadable("gone.jpg", "is not there any more", "train", 1, 9)
    rows = dict(resumed.finish("done", "", Counts()))

    summary = written(tmp_path)
    assert (summary["incidents_in_all"], summary["steps_undone"], summary["causes"]) == (2, 8, {"data": 1})
    assert [(one["epoch"], one["what"]) for one in summary["incidents"]] == [(1, "micro_batch"), (2, "roll_back")]
    assert summary["left_out"] == ["a.jpg", "gone.jpg"]
    assert rows["escalations"] == "1, 8 steps undone"
    assert rows["causes found"].startswith("data: 1; ")

    run, measured = read_run(tmp_path), measure(tmp_path)
    tally = run.history.tally
    assert (tally.incidents, tally.undone, tally.causes) == (2, 8, {"data": 1})
    assert (measured.rejections, measured.rollbacks) == (tally.rejected, tally.rollbacks) == (1, 1)
    assert {figure.name: figure.value for figure in figures(run)}["rejected"] == "1"
    assert run.history.left_out == summary["left_out"]


def test_a_log_that_is_gone_or_damaged_is_no_trouble_for_a_resumed_run(tmp_path: Path) -> None:
    summary = Summary()
    summary.read(tmp_path / "guard.jsonl")
    (tmp_path / "guard.jsonl").write_text(
        '{"event": "rejection", "epoch": 1, "files": ["a"]}\nnonsense\n{"event": "rej'
    )
    summary.read(tmp_path / "guard.jsonl")
    assert summary.to_dict()["incidents_in_all"] == 1


def test_a_file_that_both_parts_of_a_run_miss_is_listed_once() -> None:
    summary = Summary()
    gone = {"event": "unreadable", "epoch": 1, "path": "a.jpg", "why": "is gone", "split": "train"}
    for event in (gone, {"event": "start", "epoch": 0, "epochs_before": 0}, gone, {**gone, "split": "val"}):
        summary.add(event)
    content = summary.to_dict()
    assert (content["unreadable_in_all"], content["left_out"]) == (2, ["a.jpg"])
