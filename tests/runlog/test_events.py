from __future__ import annotations

import errno
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from yolo_stable._shared.strict_json import strict
from yolo_stable.guard import GuardVerdict
from yolo_stable.runlog.events import SCHEMA, Event, EventLog
from yolo_stable.runlog.reader import read_events


def event(number: int) -> Event:
    return Event(event="epoch", epoch=number, details={"number": number}, time=1000.0 + number)


def numbers(path: Path) -> list[int]:
    return [line["number"] for line in read_events(path)]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (1.5, 1.5),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (np.float64("nan"), "nan"),
        ("text", "text"),
        (GuardVerdict.CLIP, "clip"),
        (Path("a/b"), str(Path("a/b"))),
        (torch.device("cpu"), "cpu"),
        ((1, math.nan), [1, "nan"]),
        ({"a": [math.inf, {"b": (math.nan,)}]}, {"a": ["inf", {"b": ["nan"]}]}),
        ({1: 2, None: 3}, {"1": 2, "None": 3}),
        ([], []),
    ],
    ids=repr,
)
def test_what_json_cannot_say_becomes_text(value: Any, expected: Any) -> None:
    assert json.loads(json.dumps(strict(value), allow_nan=False)) == expected


def test_a_line_has_schema_kind_time_and_epoch_before_its_details() -> None:
    line = Event(event="rejection", epoch=2, details={"loss": math.nan, "files": ("a.jpg",)}, time=1.23456).to_json()
    assert line == ('{"schema": 1, "event": "rejection", "time": 1.235, "epoch": 2, "loss": "nan", "files": ["a.jpg"]}')
    assert SCHEMA == 1


def test_a_file_name_of_any_bytes_stays_one_line_of_ascii(tmp_path: Path) -> None:
    names = ["a\nb.jpg", "\u2028.jpg", "ü.jpg", b"\xff.jpg".decode("utf-8", "surrogateescape")]
    log = EventLog(tmp_path / "guard.jsonl")
    log.write(Event(event="rejection", epoch=1, details={"files": names}))
    log.close()
    assert log.problem is None
    assert (tmp_path / "guard.jsonl").read_bytes().isascii()
    assert next(read_events(tmp_path / "guard.jsonl"))["files"] == names


def test_events_are_on_disk_when_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "guard.jsonl"
    log = EventLog(path)
    assert not path.parent.exists()  # a run that never says anything leaves no file
    for number in (1, 2, 3):
        log.write(event(number))
        assert numbers(path) == list(range(1, number + 1))  # before it is closed
    log.close()
    log.close()


def test_a_new_log_starts_anew_and_a_resumed_one_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "guard.jsonl"
    for append, number, expected in [(False, 1, [1]), (True, 2, [1, 2]), (False, 3, [3]), (True, 4, [3, 4])]:
        log = EventLog(path, append=append)
        log.write(event(number))
        log.close()
        assert numbers(path) == expected


def test_a_resumed_log_without_a_file_makes_one(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "guard.jsonl", append=True)
    log.write(event(1))
    log.close()
    assert numbers(tmp_path / "guard.jsonl") == [1]


def test_a_write_after_closing_appends(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "guard.jsonl")
    for number in (1, 2):
        log.write(event(number))
        log.close()
    assert numbers(tmp_path / "guard.jsonl") == [1, 2]


@pytest.mark.parametrize("cut", range(1, len(event(2).to_json()) + 1, 7))
def test_a_line_that_a_killed_run_left_unfinished_is_dropped_also_after_resuming(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "guard.jsonl"
    path.write_text(f"{event(1).to_json()}\n{event(2).to_json()[:-cut]}")
    assert numbers(path) == [1]
    log = EventLog(path, append=True)
    for number in (3, 4):
        log.write(event(number))
    log.close()
    assert numbers(path) == [1, 3, 4]


def test_a_whole_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "guard.jsonl"
    path.write_text(f"{event(1).to_json()}\n{event(2).to_json()}")
    assert numbers(path) == [1, 2]
    log = EventLog(path, append=True)
    log.write(event(3))
    log.close()
    assert numbers(path) == [1, 2, 3]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /dev/full, a device on which every write fails")
def test_a_full_disk_ends_the_log_and_not_the_training() -> None:
    log = EventLog(Path("/dev/full"))
    for number in (1, 2):
        log.write(event(number))
    assert log.problem == "/dev/full: No space left on device"
    log.close()
    log.write(event(3))
    assert log.problem == "/dev/full: No space left on device"


class FullDisk:
    """A file that takes some lines, then none, and not even closes."""

    def __init__(self, lines: int) -> None:
        self.room, self.written, self.closed = lines, [], 0

    def write(self, line: str) -> None:
        if len(self.written) == self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.written.append(line)

    def flush(self) -> None:
        """Have nothing to do."""

    def close(self) -> None:
        self.closed += 1
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("room", [0, 1, 3])
def test_a_disk_that_fills_up_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    disk = FullDisk(room)
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: disk)
    log = EventLog(tmp_path / "guard.jsonl")
    for number in range(5):
        log.write(event(number))
    log.close()
    assert len(disk.written) == room
    assert disk.closed == 1  # at once, not when Python happens to collect it
    assert log.problem == f"{tmp_path / 'guard.jsonl'}: No space left on device"


def test_a_disk_that_fails_when_the_file_is_closed_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(5)
    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: disk)
    log = EventLog(tmp_path / "guard.jsonl")
    log.write(event(1))
    log.close()
    assert log.problem == f"{tmp_path / 'guard.jsonl'}: Input/output error"


@pytest.mark.parametrize("append", [False, True], ids=["new", "resumed"])
def test_a_place_that_cannot_be_written_ends_the_log(tmp_path: Path, append: bool) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in (tmp_path / "folder", tmp_path / "file" / "guard.jsonl"):
        log = EventLog(path, append=append)
        log.write(event(1))
        assert log.problem is not None
        assert log.problem.startswith(f"{path}: ")
        log.close()
