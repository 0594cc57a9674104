"""The process that trains a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from comparing_rig import compare_call

from yolo_stable.compare.child import GONE, command, find_orphan, start

CALL = compare_call("optimizer=SGD", lr0="0.01,0.02", stock=True)
SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def test_a_run_is_the_command_train_and_a_stock_run_one_of_our_modules(tmp_path: Path) -> None:
    guarded, stock = CALL.trials[0], CALL.trials[2]
    words = guarded.start_words(tmp_path)
    assert command(guarded, words) == [sys.executable, "-m", "yolo_stable", "train", *words, "--traceback"]
    assert command(stock, words) == [sys.executable, "-m", "yolo_stable.compare.stock_run", *words]


def test_the_output_is_added_to_the_log_and_ctrl_c_at_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    say = "import os, sys; print(os.getsid(0) == os.getpid(), flush=True); print('error', file=sys.stderr); sys.exit(7)"
    child = start([sys.executable, "-S", "-c", say], log)
    while (code := child.poll()) is None:
        time.sleep(0.01)
    assert code == 7
    assert log.read_text() == "before\nTrue\nerror\n"


@pytest.mark.parametrize("resumed", [False, True], ids=["begun", "resumed"])
def test_a_child_whose_parent_was_killed_is_found_by_its_words(tmp_path: Path, resumed: bool) -> None:
    first, second = CALL.trials[:2]
    assert find_orphan(first, tmp_path) is None
    words = first.resume_words(tmp_path) if resumed else first.start_words(tmp_path)
    child = subprocess.Popen([*SLEEP, *words])
    try:
        found = find_orphan(first, tmp_path)
        assert found is not None
        assert found.poll() is None
        assert find_orphan(second, tmp_path) is None
        assert find_orphan(first, tmp_path / "elsewhere") is None
        found.send_signal(signal.SIGTERM)
        while found.poll() is None:  # a zombie until this process, its parent, asks for its code
            time.sleep(0.01)
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        assert found.poll() == GONE
        found.kill()  # nothing is there to be killed, and nothing is said
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGTERM


def test_of_a_run_and_the_workers_of_its_loader_the_run_is_found(tmp_path: Path) -> None:
    """Workers are forks: they have the words of their parent."""
    first = CALL.trials[0]
    fork = "import os, time; pid = os.fork(); pid and print(pid, flush=True); time.sleep(60)"
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", fork, *first.start_words(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    worker = int(child.stdout.readline())
    try:
        found = find_orphan(first, tmp_path)
        assert found is not None
        found.kill()
        assert child.wait() == -signal.SIGKILL
        again = find_orphan(first, tmp_path)  # the worker is all that is left: it is waited for as well
        assert again is not None
    finally:
        child.kill()
        os.kill(worker, signal.SIGKILL)
        child.wait()
        child.stdout.close()
