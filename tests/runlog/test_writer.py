from __future__ import annotations

import errno
import json
import math
import os
import platform
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from yolo_stable.guard import Counts, Decision, Escalation, EscalationLevel, GuardConfig, GuardVerdict
from yolo_stable.presets.guard_settings import GuardSettings
from yolo_stable.presets.run_plan import RunPlan
from yolo_stable.runlog.epoch_metrics import EpochMetrics
from yolo_stable.runlog.reader import read_events
from yolo_stable.runlog.step_record import StepRecord
from yolo_stable.runlog.summary import INCIDENTS_KEPT
from yolo_stable.runlog.warning_rules import Caution
from yolo_stable.runlog.writer import FILES_KEPT, LINES_PER_EPOCH, RunLog

MICRO = Decision(
    verdict=GuardVerdict.REJECT_MICRO_BATCH,
    reason="loss nan, box_loss inf",
    loss=math.nan,
    items={"box_loss": math.inf, "cls_loss": 1.5},
    culprits=("model.0.bn.running_mean", "model.0.bn.running_var"),
)
WINDOW = Decision(
    verdict=GuardVerdict.REJECT_WINDOW, reason="gradient norm nan", norm=math.nan, culprits=("model.1.weight",)
)
BACK = Escalation(
    level=EscalationLevel.ROLL_BACK,
    reason="model/0.weight nan",
    culprits=("model/0.weight",),
    step=40,
    to_step=32,
    lr_factor=0.5,
    lost=8,
)
HERE = (2, 10, 3, 40)  # epoch, epochs, batch, batches


@pytest.fixture
def log_in() -> Iterator[Callable[..., RunLog]]:
    """Return a maker of logs; at the end of the test their files are closed."""
    made: list[RunLog] = []

    def make(folder: Path, **changes: bool) -> RunLog:
        made.append(RunLog(folder, **{"resumed": False, "write": True, **changes}))
        return made[-1]

    yield make
    for log in made:
        if log._log is not None:
            log._log.close()


def events(folder: Path) -> list[dict[str, Any]]:
    return [
        {k: v for k, v in event.items() if k not in {"schema", "time"}} for event in read_events(folder / "guard.jsonl")
    ]


def summary(folder: Path) -> dict[str, Any]:
    text = (folder / "summary.json").read_text(encoding="utf-8")
    assert text.endswith("}\n")
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


def test_the_start_says_what_ran_with_what(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    plan = RunPlan(guard=GuardConfig(max_norm=5.0), preset="stable")
    log_in(tmp_path).start(plan, optimizer="SGD", precision="float32", device="cpu")
    (start,) = events(tmp_path)
    versions = start.pop("versions")
    assert versions == {
        **{name: metadata.version(name) for name in ("torch", "ultralytics", "yolo-stable")},
        "python": platform.python_version(),
    }
    assert start == {
        "event": "start",
        "epoch": 0,
        "guard": GuardSettings.of(GuardConfig(max_norm=5.0)).to_dict(),
        "preset": "stable",
        "optimizer": "SGD",
        "precision": "float32",
        "device": "cpu",
    }


def test_a_rejected_micro_batch_is_printed_in_a_line_and_recorded_whole(
    tmp_path: Path, log_in: Callable[..., RunLog]
) -> None:
    log = log_in(tmp_path)
    files = [f"/data/{i}.jpg" for i in range(5)]
    log.batch_files(["/data/before.jpg"])
    log.batch_files(files)
    assert log.rejection(MICRO, HERE, 17) == (
        "epoch 2/10, batch 3/40: micro-batch rejected: loss nan, box_loss inf (first: model.0.bn.running_mean)."
        " Images: 0.jpg, 1.jpg, 2.jpg and 2 more"
    )
    assert events(tmp_path) == [
        {
            "event": "rejection",
            "epoch": 2,
            "batch": 3,
            "step": 17,
            "what": "micro_batch",
            "reason": "loss nan, box_loss inf",
            "culprits": ["model.0.bn.running_mean", "model.0.bn.running_var"],
            "loss": "nan",
            "items": {"box_loss": "inf", "cls_loss": 1.5},
            "norm": None,
            "files": files,
        }
    ]


def test_a_rejected_window_has_the_files_of_all_its_micro_batches(
    tmp_path: Path, log_in: Callable[..., RunLog]
) -> None:
    log = log_in(tmp_path)
    log.batch_files(["a.jpg"])
    log.window_closed()
    log.batch_files(["b.jpg"])
    log.batch_files(["c.jpg", "d.jpg"])
    assert log.rejection(WINDOW, HERE, 0) == (
        "epoch 2/10, batch 3/40: window rejected: gradient norm nan (first: model.1.weight). Images: b.jpg, c.jpg, d.jpg"
    )
    log.window_closed()
    log.batch_files(["e.jpg"])
    log.rejection(WINDOW, HERE, 0)
    assert [event["files"] for event in events(tmp_path)] == [["b.jpg", "c.jpg", "d.jpg"], ["e.jpg"]]
    assert events(tmp_path)[0]["what"] == "window"


def test_images_without_names_are_said_to_have_none(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path)
    bare = Decision(verdict=GuardVerdict.REJECT_WINDOW, reason="gradient norm inf")
    assert log.rejection(bare, (1, 1, 1, 1), 0) == (
        "epoch 1/1, batch 1/1: window rejected: gradient norm inf. Its images have no file names"
    )


def test_a_window_of_any_size_keeps_a_bounded_number_of_names(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path)
    for i in range(3):
        log.batch_files([f"{i}-{j}.jpg" for j in range(FILES_KEPT // 2 + 1)])
    log.rejection(WINDOW, HERE, 0)
    log.rejection(MICRO, HERE, 0)
    window, micro = (event["files"] for event in events(tmp_path))
    assert len(window) == FILES_KEPT
    assert window[0] == "0-0.jpg"
    assert len(micro) == FILES_KEPT // 2 + 1
    assert micro[0] == "2-0.jpg"


def test_names_are_asked_for_only_when_a_batch_is_rejected(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    """Working them out takes longer than drawing a batch."""
    asked = []

    class Names:
        def __iter__(self) -> Iterator[str]:
            asked.append(self)
            yield "a.jpg"

    log = log_in(tmp_path)
    log.batch_files(Names())
    log.window_closed()
    log.batch_files(Names())
    assert asked == []
    assert log.rejection(MICRO, HERE, 0).endswith("Images: a.jpg")
    assert len(asked) == 1


def test_images_that_cannot_be_read_are_counted_and_those_of_the_training_left_out(
    tmp_path: Path, log_in: Callable[..., RunLog]
) -> None:
    log = log_in(tmp_path)
    log.unreadable("/data/a.jpg", "is gone", "train", 1, 40)
    log.unreadable("/data/v.jpg", "is empty", "val", 1, 8)
    rows = dict(log.finish("done", "", Counts()))
    assert rows["unreadable"] == "2 images; first: /data/a.jpg is gone"
    assert rows["left out"] == "/data/a.jpg"
    assert summary(tmp_path)["left_out"] == ["/data/a.jpg"]
    assert summary(tmp_path)["unreadable"] == [
        {"path": "/data/a.jpg", "why": "is gone", "split": "train"},
        {"path": "/data/v.jpg", "why": "is empty", "split": "val"},
    ]
    (event,) = [e for e in events(tmp_path) if e["event"] == "unreadable" and e["split"] == "train"]
    assert (event["path"], event["lost"], event["images"]) == ("/data/a.jpg", 1, 40)


def test_an_epoch_prints_a_bounded_number_of_lines_and_records_all(
    tmp_path: Path, log_in: Callable[..., RunLog]
) -> None:
    log = log_in(tmp_path)
    for epoch in (1, 2):
        log.begin_epoch()
        lines = [log.rejection(MICRO, (epoch, 2, i, 99), 0) for i in range(1, LINES_PER_EPOCH + 6)]
        assert all(lines[:LINES_PER_EPOCH])
        assert lines[LINES_PER_EPOCH:] == [""] * 5
        assert [line.endswith("further ones in this epoch are not printed") for line in lines].index(True) == (
            LINES_PER_EPOCH - 1
        )
    assert len(events(tmp_path)) == 2 * (LINES_PER_EPOCH + 5)


def test_an_epoch_is_recorded_with_its_norms(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path)
    telemetry = EpochMetrics()
    for decision in (
        Decision(verdict=GuardVerdict.BACKWARD, items={"box_loss": 2.0}),
        Decision(verdict=GuardVerdict.APPLY, norm=4.0),
        Decision(verdict=GuardVerdict.CLIP, norm=20.0),
        WINDOW,
    ):
        telemetry.add(decision)
    log.epoch(1, telemetry)
    telemetry.begin()
    log.epoch(2, telemetry)
    first, second = events(tmp_path)
    assert first == {
        "event": "epoch",
        "epoch": 1,
        "applied": 2,
        "clipped": 1,
        "rejected": 1,
        "norm_mean": 12.0,
        "norm_max": 20.0,
        "loss": {"box_loss": 2.0},
    }
    assert (second["applied"], second["norm_mean"], second["norm_max"]) == (0, None, None)


def test_the_numbers_of_a_step_are_recorded(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    record = StepRecord(
        batch=3,
        step=10,
        loss={"box_loss": 1.23456789},
        norm=40.0,
        clip=0.25,
        lr=(0.01, 0.1),
        scale=None,
        seconds=0.125,
        memory=2**30,
        layers=(("model.0.conv", 0.75), ("model.1.conv", 0.25)),
    )
    log_in(tmp_path).steps(record, 2)
    (steps,) = events(tmp_path)
    assert steps == {
        "event": "steps",
        "epoch": 2,
        "batch": 3,
        "step": 10,
        "loss": {"box_loss": 1.23457},
        "norm": 40.0,
        "clip": 0.25,
        "lr": [0.01, 0.1],
        "scale": None,
        "seconds": 0.125,
        "memory": 2**30,
        "layers": [["model.0.conv", 0.75], ["model.1.conv", 0.25]],
    }


def test_warnings_are_recorded_and_counted(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path)
    high = Caution(what="norm over limit", message="it was 300", value=300.0, limit=100.0)
    for epoch, step in ((1, 20), (2, 40)):
        log.warning(high, epoch, step)
    log.warning(Caution(what="norm rising", message="m", value=4.0, limit=3.0), 2, 50)
    assert events(tmp_path)[0] == {
        "event": "warning",
        "epoch": 1,
        "what": "norm over limit",
        "message": "it was 300",
        "value": 300.0,
        "limit": 100.0,
        "step": 20,
    }
    rows = dict(log.finish("done", "", Counts(applied=50)))
    assert rows["warnings"] == "norm over limit: 2, norm rising: 1; see above or guard.jsonl for what to do"
    assert summary(tmp_path)["warnings"] == {"norm over limit": 2, "norm rising": 1}


def test_escalations_and_refused_checkpoints_are_recorded(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path)
    line = log.escalation(BACK, 3)
    assert line == (
        "epoch 3: rolled back from step 40 to step 32 (8 undone), learning rate x 0.5. Reason: model/0.weight nan."
    )
    log.validation_not_finite(3, ["val/box_loss"])
    log.checkpoint_kept(4, ("EMA model.0.weight",))
    escalation = {"rung": "roll_back", "reason": "model/0.weight nan", "culprits": ["model/0.weight"], "step": 40}
    assert events(tmp_path) == [
        {"event": "climb", "epoch": 3, **escalation, "to_step": 32, "lost": 8, "lr_factor": 0.5, "precision": None},
        {"event": "validation_not_finite", "epoch": 3, "names": ["val/box_loss"]},
        {"event": "checkpoint_kept", "epoch": 4, "culprits": ["EMA model.0.weight"]},
    ]
    rows = dict(log.finish("done", "", Counts()))
    assert rows["escalations"] == "1, 8 steps undone"
    assert summary(tmp_path)["steps_undone"] == 8


@pytest.mark.parametrize(
    ("escalation", "line"),
    [
        (
            Escalation(level=EscalationLevel.REPAIR, reason="r", step=9, to_step=4),
            "epoch 1: the EMA was restored from step 4, training goes on. Reason: r.",
        ),
        (
            Escalation(
                level=EscalationLevel.LOWER_PRECISION,
                reason="r",
                step=9,
                to_step=9,
                lr_factor=0.25,
                precision="float32",
            ),
            "epoch 1: rolled back to step 9, no step undone, float32 from here on, learning rate x 0.25. Reason: r.",
        ),
        (
            Escalation(level=EscalationLevel.ROLL_BACK, reason="r", step=23, to_step=16, lost=7),
            "epoch 1: rolled back from step 23 to step 16 (7 undone), the learning rate stays. Reason: r.",
        ),
        (
            Escalation(level=EscalationLevel.ROLL_BACK, reason="r", step=23, to_step=16),
            "epoch 1: rolled back to step 16, no step undone, the learning rate stays. Reason: r.",
        ),
        (
            Escalation(level=EscalationLevel.ROLL_BACK, reason="r", step=26, to_step=16, lost=3),
            "epoch 1: rolled back to step 16 (3 undone), the learning rate stays. Reason: r.",
        ),
        (
            Escalation(level=EscalationLevel.HALT, reason="r", step=9, to_step=4),
            "epoch 1: training is halted, the state was rolled back to step 4. Reason: r.",
        ),
        (Escalation(level=EscalationLevel.HALT, reason="r", step=9), "epoch 1: training is halted. Reason: r."),
    ],
    ids=[
        "repair",
        "lower-precision",
        "once",
        "again-at-once",
        "again-after-three-steps",
        "halt",
        "halt-without-snapshot",
    ],
)
def test_every_rung_has_its_line(
    tmp_path: Path, log_in: Callable[..., RunLog], escalation: Escalation, line: str
) -> None:
    assert log_in(tmp_path).escalation(escalation, 1) == line


def test_the_newest_healthy_checkpoint_is_named(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path)
    assert log.good_checkpoint() == "No checkpoint was written in this run."
    for epoch in (1, 2):
        log.saved(tmp_path / "last.pt", epoch)
    assert log.good_checkpoint() == f"The good checkpoint is {tmp_path / 'last.pt'} (epoch 2)."


def test_the_end_leaves_a_summary_and_a_table(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path)
    counts = Counts(micro_batches=9, applied=6, clipped=2, rejected_micro_batches=1, rejected_windows=1)
    log.batch_files([f"/data/{i}.jpg" for i in range(4)])
    log.rejection(MICRO, HERE, 5)
    log.rejection(WINDOW, (3, 10, 1, 40), 5)
    log.saved(tmp_path / "last.pt", 1)
    rows = log.finish("halted", "Training halted.", counts)
    assert rows == [
        ("steps applied", "6, of them clipped: 2"),
        ("rejected", "micro-batches: 1, windows: 1"),
        ("", "epoch 2, batch 3: micro-batch, loss nan, box_loss inf (0.jpg, 1.jpg, 2.jpg, ...)"),
        ("", "epoch 3, batch 1: window, gradient norm nan (0.jpg, 1.jpg, 2.jpg, ...)"),
        ("details", f"{tmp_path / 'summary.json'}, guard.jsonl"),
    ]
    files = [f"/data/{i}.jpg" for i in range(3)]
    incident = {"files": files, "files_in_all": 4}
    assert summary(tmp_path) == {
        "schema": 1,
        "status": "halted",
        "message": "Training halted.",
        "epochs": 3,
        "counts": counts.to_dict(),
        "checkpoint": str(tmp_path / "last.pt"),
        "incidents": [
            {"epoch": 2, "batch": 3, "what": "micro_batch", "reason": "loss nan, box_loss inf", **incident},
            {"epoch": 3, "batch": 1, "what": "window", "reason": "gradient norm nan", **incident},
        ],
        "incidents_in_all": 2,
        "steps_undone": 0,
        "causes": {},
        "left_out": [],
        "unreadable": [],
        "unreadable_in_all": 0,
        "warnings": {},
    }
    assert events(tmp_path)[-1] == {
        "event": "end",
        "epoch": 3,
        "status": "halted",
        "message": "Training halted.",
        "counts": counts.to_dict(),
    }
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guard.jsonl", "summary.json"]


def test_a_run_without_incidents_says_so(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    rows = log_in(tmp_path).finish("done", "", Counts(applied=3))
    assert [name for name, _ in rows] == ["steps applied", "rejected", "details"]
    assert (summary(tmp_path)["incidents"], summary(tmp_path)["checkpoint"]) == ([], None)


@pytest.mark.parametrize("rejections", [10, 11, INCIDENTS_KEPT + 7])
def test_many_incidents_are_counted_and_the_first_ones_listed(
    tmp_path: Path, log_in: Callable[..., RunLog], rejections: int
) -> None:
    log = log_in(tmp_path)
    for batch in range(1, rejections + 1):
        log.rejection(MICRO, (1, 1, batch, 999), 0)
    rows = log.finish("done", "", Counts(rejected_micro_batches=rejections))
    more = [("", f"and {rejections - 10} more, in guard.jsonl")] if rejections > 10 else []
    assert [row for row in rows if row[0] == ""][10:] == more
    assert len(summary(tmp_path)["incidents"]) == min(rejections, INCIDENTS_KEPT)
    assert summary(tmp_path)["incidents_in_all"] == rejections
    assert len(events(tmp_path)) == rejections + 1


def test_with_several_gpus_the_incidents_may_be_more_than_the_counts(
    tmp_path: Path, log_in: Callable[..., RunLog]
) -> None:
    """There a bad micro-batch and the window that it spoils are two incidents, and the guard counts the window."""
    log = log_in(tmp_path)
    for batch in range(1, 7):
        log.rejection(MICRO, (1, 1, batch, 9), 0)
        log.rejection(WINDOW, (1, 1, batch, 9), 0)
    rows = log.finish("done", "", Counts(rejected_windows=6))
    assert ("", "and 2 more, in guard.jsonl") in rows
    assert len(summary(tmp_path)["incidents"]) == summary(tmp_path)["incidents_in_all"] == 12


def test_a_rank_that_keeps_no_files_keeps_none(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    log = log_in(tmp_path, write=False)
    log.start(RunPlan(guard=GuardConfig()))
    log.batch_files(["a.jpg"])
    assert "a.jpg" in log.rejection(MICRO, HERE, 0)
    log.epoch(1, EpochMetrics())
    log.escalation(BACK, 1)
    log.checkpoint_kept(1, ())
    rows = log.finish("done", "", Counts(rejected_micro_batches=1))
    assert "details" not in dict(rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("resumed", [False, True], ids=["new", "resumed"])
def test_a_resumed_run_appends_to_its_log(tmp_path: Path, log_in: Callable[..., RunLog], resumed: bool) -> None:
    log_in(tmp_path).escalation(BACK, 1)
    log = log_in(tmp_path, resumed=resumed)
    log.escalation(BACK, 2)
    log.finish("done", "", Counts())
    assert [event["epoch"] for event in events(tmp_path)] == ([1, 2, 2] if resumed else [2, 2])
    assert summary(tmp_path)["epochs"] == 2


# ---- when the disk is full -------------------------------------------------------------------------------------------


def everything(log: RunLog) -> list[tuple[str, str]]:
    """Do all that a training run does to its log."""
    log.start(RunPlan(guard=GuardConfig()), device="cpu")
    log.begin_epoch()
    log.batch_files(["a.jpg"])
    assert log.rejection(MICRO, HERE, 0)
    assert log.rejection(WINDOW, HERE, 0)
    log.window_closed()
    log.epoch(1, EpochMetrics())
    log.escalation(BACK, 1)
    log.checkpoint_kept(1, ("a",))
    log.saved(Path("last.pt"), 1)
    return log.finish("done", "", Counts(rejected_windows=1, rejected_micro_batches=1))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full, a device on which every write fails")
def test_a_full_disk_never_raises_and_is_reported_at_the_end(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    for name in ("guard.jsonl", "summary.json.part"):
        (tmp_path / name).symlink_to("/dev/full")
    rows = dict(everything(log_in(tmp_path)))
    assert rows["details"] == (
        f"{tmp_path / 'guard.jsonl'}: No space left on device; {tmp_path / 'summary.json'}: No space left on device"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["guard.jsonl"]


def test_a_full_disk_spoils_no_earlier_summary(
    tmp_path: Path, log_in: Callable[..., RunLog], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "summary.json").write_text("{}\n")
    calls = []

    def no_space(handle: int) -> None:
        calls.append(handle)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    rows = dict(everything(log_in(tmp_path)))
    assert rows["details"] == f"{tmp_path / 'summary.json'}: No space left on device"
    assert len(calls) == 1
    assert not (tmp_path / "summary.json.part").exists()
    assert (tmp_path / "summary.json").read_bytes() == b"{}\n"
    assert events(tmp_path)[-1]["event"] == "end"


def test_a_log_that_stopped_does_not_cost_the_summary(tmp_path: Path, log_in: Callable[..., RunLog]) -> None:
    (tmp_path / "guard.jsonl").mkdir()
    rows = dict(everything(log_in(tmp_path)))
    assert rows["details"].startswith(f"{tmp_path / 'guard.jsonl'}: ")
    assert summary(tmp_path)["incidents_in_all"] == 3
