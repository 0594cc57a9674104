"""What a run has written so far."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from yolo_stable.comparing.run_files import first_epochs, read_log, read_rows, that_count


def test_the_rows_are_told_by_epoch_and_the_last_of_an_epoch_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("   epoch,  time,train/box_loss\n1,2.5,nan\n2,5,0.5\n2,6,0.25\n3,7\nnone,1,1\n4,9,0.1")
    rows = read_rows(path)
    assert list(rows) == [1, 2]
    assert math.isnan(rows[1]["train/box_loss"])
    assert rows[2] == {"epoch": 2.0, "time": 6.0, "train/box_loss": 0.25}


def test_files_that_are_not_there_or_ruined_say_nothing(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "gone.csv") == {}
    assert read_log(tmp_path / "gone.jsonl") == []
    (tmp_path / "empty.csv").write_text("")
    assert read_rows(tmp_path / "empty.csv") == {}
    (tmp_path / "ruined.jsonl").write_text('{"event"\n{"event": "start"}\n')
    assert read_log(tmp_path / "ruined.jsonl") == []


def event(kind: str, epoch: int, **more: Any) -> dict[str, Any]:
    return {"event": kind, "epoch": epoch, **more}


def test_what_a_resumed_run_trained_again_counts_once() -> None:
    """Killed in its second epoch, resumed from the end of the first one, and again from the end of the second one."""
    events = [
        event("start", 0, epochs_before=0),
        event("rejection", 1, batch=3),
        event("epoch", 1),
        event("rejection", 2, batch=1),
        event("start", 0, epochs_before=1),
        event("rejection", 2, batch=1),
        event("epoch", 2),
        event("start", 0, epochs_before=2),
        event("epoch", 3),
    ]
    kept = [(e["event"], e["epoch"]) for e in that_count(events) if e["event"] != "start"]
    assert kept == [("rejection", 1), ("epoch", 1), ("rejection", 2), ("epoch", 2), ("epoch", 3)]
    assert first_epochs(events) == {1, 2, 3}
    assert first_epochs([]) == {1}
