"""What became of a run, told by its exit code or by what it left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolo_stable.compare.outcome import STOCK_END, last_words, left_behind, outcome_of


def write_events(folder: Path, *events: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "guard.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


START: dict[str, object] = {"event": "start"}
HALTED: dict[str, object] = {"event": "end", "status": "halted", "message": "20 in a row"}


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        pytest.param(0, "done", "", id="done"),
        pytest.param(1, "failed", "it broke", id="failed"),
        pytest.param(2, "failed", "it broke", id="refused"),
        pytest.param(130, "interrupted", "it broke", id="Ctrl-C"),
        pytest.param(-2, "interrupted", "it broke", id="Ctrl-C before it listened"),
        pytest.param(143, "interrupted", "it broke", id="SIGTERM"),
        pytest.param(-15, "interrupted", "it broke", id="SIGTERM before it listened"),
        pytest.param(-9, "failed", "ended by SIGKILL, as the system does when memory runs out", id="SIGKILL"),
        pytest.param(-11, "failed", "ended by SIGSEGV", id="crash"),
    ],
)
def test_an_exit_code_says_what_became_of_a_run(tmp_path: Path, code: int, status: str, reason: str) -> None:
    (tmp_path / "log").write_text("Traceback\nyolo-stable: it broke\n")
    found = outcome_of(code, tmp_path / "run", tmp_path / "log")
    assert (found.status, found.reason, found.exit_code) == (status, reason, code)
    assert found.refused == (code == 2)


def test_a_run_that_the_guard_halted_says_why(tmp_path: Path) -> None:
    write_events(tmp_path / "run", START, HALTED)
    found = outcome_of(1, tmp_path / "run", tmp_path / "no log")
    assert (found.status, found.reason) == ("halted", "20 in a row")


def test_a_failure_without_a_word_is_told_by_its_code(tmp_path: Path) -> None:
    assert outcome_of(7, tmp_path, tmp_path / "no log").reason == "exit code 7"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        pytest.param([START, {"event": "end", "status": "done"}], "done", id="done"),
        pytest.param([START, HALTED], "halted", id="halted"),
        pytest.param([START, {"event": "end", "status": "interrupted"}], "interrupted", id="interrupted"),
        pytest.param([START, HALTED, START], None, id="started again"),
        pytest.param([START], None, id="killed"),
        pytest.param([], None, id="nothing"),
    ],
)
def test_what_a_run_left_behind_says_what_became_of_it(
    tmp_path: Path, events: list[dict[str, object]], status: str | None
) -> None:
    write_events(tmp_path, *events)
    found = left_behind(tmp_path)
    assert (found.status if found else None) == status


def test_a_stock_run_leaves_a_file_when_it_is_done(tmp_path: Path) -> None:
    assert left_behind(tmp_path) is None
    (tmp_path / STOCK_END).write_text('{"schema": 1, "sta')
    assert left_behind(tmp_path) is None
    (tmp_path / STOCK_END).write_text('{"schema": 1, "status": "done"}')
    found = left_behind(tmp_path)
    assert found is not None
    assert found.status == "done"


def test_the_reason_is_what_the_command_said_and_not_what_an_earlier_start_did(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"yolo-stable: the first time\n")
    start = log.stat().st_size
    assert last_words(log) == "the first time"
    assert last_words(log, start) == ""
    log.write_bytes(
        log.read_bytes() + "  10%\r 100% ✓\nValueError: \xff\n".encode("latin-1", errors="replace") + b"\n\n"
    )
    assert last_words(log, start) == "ValueError: \ufffd"
    log.write_bytes(log.read_bytes() + b"yolo-stable: the second time\nlast line\n")
    assert last_words(log, start) == "the second time"
