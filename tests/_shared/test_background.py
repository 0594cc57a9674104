"""A job beside its caller: one at a time, never unseen when it fails, and never in the middle of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from yolo_stable._shared import background
from yolo_stable._shared.background import Background


def test_it_runs_beside_its_caller_and_its_result_is_taken_once() -> None:
    may_end, job = threading.Event(), Background[int]()
    assert (job.idle, job.done) == (True, False)
    job.start(lambda: may_end.wait(60) and 7)
    assert (job.idle, job.done) == (False, False)
    may_end.set()
    assert job.result() == 7
    assert (job.idle, job.done) == (True, False)
    job.start(lambda: 8)
    assert job.result() == 8


@pytest.mark.parametrize("error", [MemoryError("no room"), KeyboardInterrupt()], ids=repr)
def test_what_it_raises_is_raised_where_the_result_is_asked_for(error: BaseException) -> None:
    def fail() -> None:
        raise error

    job = Background[None]()
    job.start(fail)
    with pytest.raises(type(error)) as caught:
        job.result()
    assert caught.value is error
    assert job.idle


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_it() -> None:
    ended: list[int] = []
    job = Background[None]()
    job.start(lambda: (time.sleep(0.3), ended.append(1))[1])
    assert not ended
    child = os.fork()
    if child == 0:
        os._exit(7 if ended else 8)
    assert ended
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    job.result()


ENDING = """
import sys, time
from pathlib import Path
from yolo_stable._shared.background import Background

job = Background()
job.start(lambda: (time.sleep(0.5), Path(sys.argv[1]).write_text("whole")))
raise SystemExit(3)
"""


def test_a_process_that_ends_otherwise_ends_the_job_first(tmp_path: object) -> None:
    path = os.path.join(str(tmp_path), "file")
    done = subprocess.run([sys.executable, "-c", ENDING, path], check=False, timeout=60)
    assert done.returncode == 3
    with open(path) as file:
        assert file.read() == "whole"


def test_forks_wait_by_one_hook_however_many_jobs_there_were(monkeypatch: pytest.MonkeyPatch) -> None:
    hooks: list[object] = []
    monkeypatch.setattr(background, "_waits", False)
    monkeypatch.setattr(os, "register_at_fork", lambda *, before: hooks.append(before), raising=False)
    for number in range(3):
        job = Background[int]()
        job.start(lambda number=number: number)
        assert job.result() == number
    assert len(hooks) == 1
