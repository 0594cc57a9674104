from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_rig import Log

from yolo_stable.runlog import reader
from yolo_stable.runlog.reader import LogDamage, read_events


def read(path: Path) -> tuple[list[str], LogDamage]:
    damage = LogDamage()
    return [event["event"] for event in read_events(path, damage)], damage


def test_a_whole_log_is_read_without_a_notice(tmp_path: Path) -> None:
    Log().start().steps(1, 10).end(1).write(tmp_path)
    events, damage = read(tmp_path / "guard.jsonl")
    assert events == ["start", "steps", "end"]
    assert damage.notices("guard.jsonl") == []


def test_a_last_line_that_was_cut_off_is_said(tmp_path: Path) -> None:
    path = Log().start().steps(1, 10).write(tmp_path) / "guard.jsonl"
    path.write_bytes(path.read_bytes()[:-30])
    events, damage = read(path)
    assert events == ["start"]
    assert damage.notices("guard.jsonl") == [
        "guard.jsonl: the last line is unfinished, as after a killed run, and left out."
    ]


@pytest.mark.parametrize(
    "broken",
    [b'{"schema": 1, "ev', b"[1, 2]", b'{"event": 3}', b"\xff\xfe\x00", b"[" * 100_000, b"null", b'{"schema": 1}'],
)
def test_a_broken_line_in_the_middle_is_left_out_and_named(tmp_path: Path, broken: bytes) -> None:
    path = Log().start().steps(1, 10).steps(1, 20).write(tmp_path) / "guard.jsonl"
    whole = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([whole[0], broken, *whole[1:]]) + b"\n")
    events, damage = read(path)
    assert events == ["start", "steps", "steps"]
    assert damage.notices("log") == ["log: 1 line is damaged (line 2) and left out."]


@pytest.mark.parametrize("schema", [7, 0, -1, "2", 1.5, None, [1], True])
def test_a_schema_that_is_not_known_is_said(tmp_path: Path, schema: Any) -> None:
    path = Log().start().write(tmp_path) / "guard.jsonl"
    with open(path, "a") as file:
        file.write(json.dumps({"schema": schema, "event": "moonphase", "time": 1, "epoch": 1}) + "\n")
    events, damage = read(path)
    assert events == ["start", "moonphase"]
    assert "which this version of yolo-stable does not know" in damage.notices("guard.jsonl")[0]


def test_an_endless_line_takes_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LONGEST", 1000)
    path = Log().start().write(tmp_path) / "guard.jsonl"
    tail = json.dumps({"schema": 1, "event": "end", "time": 2, "epoch": 1})
    path.write_text(path.read_text() + '{"event": "' + "x" * 5500 + '"}\n' + tail + "\n")
    events, damage = read(path)
    assert events == ["start", "end"]
    assert (damage.broken, damage.first_broken) == (1, 2)


def test_an_empty_log_is_said(tmp_path: Path) -> None:
    (tmp_path / "guard.jsonl").touch()
    assert read(tmp_path / "guard.jsonl")[1].notices("guard.jsonl") == ["guard.jsonl is empty."]
