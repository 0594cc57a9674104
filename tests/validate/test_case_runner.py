"""CaseRunner that two processes run: each once, in their order, whatever becomes of the second one."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from validations import check

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import Progress
from yolo_stable.validate.battery import cases
from yolo_stable.validate.run import CaseRunner

PLANNED = cases("quick", "cpu")[:60]


class Process:
    """Stands for a process; notes what it has run.

    Args:
        met: Passed before its first case; with two of them both have begun before either goes on.
        refuses: Whether it never starts.
    """

    def __init__(self, met: threading.Barrier | None = None, *, refuses: bool = False) -> None:
        self.ran: list[str] = []
        self.met, self.refuses, self.closed = met, refuses, False

    def __enter__(self) -> Process:
        if self.refuses:
            raise InvalidCallError("no memory for a second process")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.closed = True

    def run(self, case: Any) -> Any:
        if self.met is not None and not self.ran:
            self.met.wait(10)
        self.ran.append(case.id)
        return check(case.id)


def run(pool: Any, beside: Any = None, say: Any = lambda _: None) -> list[str]:
    return [result.id for result in CaseRunner(PLANNED, say).run(pool, beside)]


def test_two_processes_share_the_checks_and_the_results_are_in_order() -> None:
    met = threading.Barrier(2)
    one, other = Process(met), Process(met)
    told: list[Progress] = []
    assert run(one, other, told.append) == [case.id for case in PLANNED]
    assert sorted(one.ran + other.ran) == sorted(case.id for case in PLANNED)
    assert one.ran
    assert other.ran
    assert other.closed
    of_check = [{name.rsplit("/", 2)[0] for name in process.ran} for process in (one, other)]
    assert not of_check[0] & of_check[1], "the cases of a check share their references, so one process runs them"
    ended = [progress.done for progress in told if progress.result is not None]
    assert ended == list(range(1, len(PLANNED) + 1))


def test_where_the_second_one_does_not_start_the_first_one_does_all() -> None:
    one = Process()
    assert run(one, Process(refuses=True)) == one.ran == [case.id for case in PLANNED]
    assert run(Process()) == [case.id for case in PLANNED]


@pytest.mark.parametrize("thread", ["MainThread", "yolo-stable validate"])
def test_who_does_not_want_to_be_told_any_more_ends_both(thread: str) -> None:
    met = threading.Barrier(2)
    one, other = Process(met), Process(met)

    def say(progress: Progress) -> None:
        if progress.result is not None and threading.current_thread().name == thread:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(one, other, say)
    assert other.closed
    stopped = one if thread == "MainThread" else other
    assert len(stopped.ran) == 1
