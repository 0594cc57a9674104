"""What is shown while runs are trained."""

from __future__ import annotations

import io
import re
from pathlib import Path

from comparing_rig import compare_call
from rich.console import Console

from yolo_stable.compare.board import Board
from yolo_stable.compare.outcome import TrialOutcome

CALL = compare_call("optimizer=SGD", lr0="0.01,0.02,0.03")


def shown(tmp_path: Path, *, terminal: bool) -> str:
    out = io.StringIO()
    first, second, third = CALL.trials
    results = first.folder(tmp_path) / "results.csv"
    results.parent.mkdir()
    with Board(CALL.trials, tmp_path, Console(file=out, force_terminal=terminal, width=100)) as board:
        board.end(third, TrialOutcome(status="halted", reason="20 in a row"), before=True)
        board.begin(first, 1)
        board.watch(first)
        results.write_text("epoch,time\n1,2.5\n")
        board.watch(first)
        board.say("A line.")
        board.end(first, TrialOutcome(status="done"))
        board.begin(second, 2)
        board.watch(second)
    return out.getvalue()


def test_a_terminal_has_a_line_for_each_run_with_its_epoch(tmp_path: Path) -> None:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown(tmp_path, terminal=True))
    lines = [line.split() for line in text.splitlines()]
    last = {line[0]: line for line in lines if line and line[0].startswith("lr0=")}
    assert last["lr0=0.01"][2] == "done"
    assert last["lr0=0.02"][2:4] == ["epoch", "1/3"]
    assert last["lr0=0.03"][2:4] == ["halted", "before"]


def test_the_epoch_is_read_only_when_there_is_something_new(tmp_path: Path) -> None:
    first = CALL.trials[0]
    results = first.folder(tmp_path) / "results.csv"
    results.parent.mkdir()
    out = io.StringIO()
    with Board(CALL.trials, tmp_path, Console(file=out, force_terminal=True, width=100)) as board:
        board.begin(first, 1)
        results.write_text("epoch,time\n1,2.5\n2,5.0\n")
        board.watch(first)
        results.write_text("epoch,time\n3,2.5\n3,5.0\n")  # as large as before
        board.watch(first)
    assert "epoch 3/3" in out.getvalue()
    assert "epoch 4" not in out.getvalue()


def test_a_pipe_gets_a_line_when_a_run_begins_and_ends(tmp_path: Path) -> None:
    assert shown(tmp_path, terminal=False).splitlines() == [
        "lr0=0.03: halted before: 20 in a row",
        f"1/3 lr0=0.01: started; its output is in {tmp_path}/lr0=0.01.log",
        "A line.",
        "lr0=0.01: done",
        f"2/3 lr0=0.02: started; its output is in {tmp_path}/lr0=0.02.log",
    ]
