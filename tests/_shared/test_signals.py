"""A run that is asked to end finishes its step; asked twice, it ends at once. With real signals, some to a process of its own."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from yolo_stable._shared.signals import SIGNALS, GracefulStop, LeftToParent
from yolo_stable.errors import TrainingInterruptedError

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="the signals of POSIX"),
    pytest.mark.usefixtures("interruptible"),
]


@pytest.fixture(autouse=True)
def handlers_as_before(interruptible: None) -> Iterator[dict[signal.Signals, Any]]:
    """Require that a story leaves the handlers of this process as they were, and put them back in any case."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield before
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def send_both(first: int, second: int) -> None:
    """Send two; the first one must not interrupt."""
    try:
        send(first)
    except KeyboardInterrupt:
        pytest.fail("the first signal interrupted")
    send(second)


def process(code: str) -> subprocess.CompletedProcess[str]:
    """Run a story in a process of its own, where a signal may kill."""
    head = (
        "import os, signal, sys, time\n"
        "from yolo_stable._shared.signals import GracefulStop, held_back\n"
        "send = lambda number: os.kill(os.getpid(), number)\n"
    )
    return subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_remembered_and_the_work_goes_on(number: signal.Signals) -> None:
    said: list[signal.Signals] = []
    done = 0
    with GracefulStop(said.append) as stop:
        assert stop.requested is None
        send(number)
        for _ in range(1000):
            done += 1
        assert stop.requested is number
    assert (done, said) == (1000, [number])
    assert stop.requested is number, "kept for who looks later"


def test_without_a_signal_nothing_is_requested() -> None:
    said: list[signal.Signals] = []
    with GracefulStop(said.append) as stop:
        assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    assert (stop.requested, said) == (None, [])


def test_it_can_be_entered_again_but_not_twice() -> None:
    stop = GracefulStop()
    with stop:
        send(signal.SIGTERM)
        with pytest.raises(RuntimeError, match="entered already"):
            stop.__enter__()
    with stop:
        assert stop.requested is None


@pytest.mark.parametrize("first", SIGNALS)
def test_ctrl_c_as_the_second_signal_interrupts_at_once(first: signal.Signals) -> None:
    said: list[signal.Signals] = []
    with pytest.raises(KeyboardInterrupt), GracefulStop(said.append):
        send_both(first, signal.SIGINT)
    assert said == [first]


@pytest.mark.parametrize("first", ["SIGTERM", "SIGINT"])
def test_sigterm_as_the_second_signal_ends_the_process(first: str) -> None:
    done = process(
        f"with GracefulStop(lambda number: print(number.name, flush=True)) as stop:\n"
        f"    send(signal.{first})\n"
        "    print('goes on', flush=True)\n"
        "    send(signal.SIGTERM)\n"
        "    time.sleep(5)\n"
        "    print('not reached')\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == (f"{first}\ngoes on\n", "", -signal.SIGTERM)


def test_nested_ones_give_back_and_the_second_signal_leaves_all_of_them() -> None:
    with GracefulStop() as outer:
        with GracefulStop() as inner:
            send(signal.SIGINT)
        assert (outer.requested, inner.requested) == (None, signal.SIGINT)
        send(signal.SIGTERM)
        assert outer.requested is signal.SIGTERM
    with pytest.raises(KeyboardInterrupt), GracefulStop(), GracefulStop():
        send_both(signal.SIGTERM, signal.SIGINT)


def test_a_handler_of_the_callers_gets_the_second_signal_and_is_there_again_afterwards() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        mine = signal.getsignal(signal.SIGTERM)
        with GracefulStop():
            send(signal.SIGTERM)
            assert got == []
            send(signal.SIGTERM)
            assert got == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_set_on_top_stays_and_what_it_passes_on_is_not_lost() -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        with GracefulStop() as stop:
            passed_on = signal.getsignal(signal.SIGINT)
            assert callable(passed_on)
            signal.signal(signal.SIGINT, on_top := lambda number, frame: passed_on(number, frame))
        assert signal.getsignal(signal.SIGINT) is on_top
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert stop.requested is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_the_process_ignores_stays_ignored() -> None:
    done = process(
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "with GracefulStop() as stop:\n"
        "    send(signal.SIGINT); send(signal.SIGINT)\n"
        "    print(stop.requested, signal.getsignal(signal.SIGINT).name)\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("None SIG_IGN\n", "", 0)


def test_a_signal_that_is_held_back_comes_afterwards_and_never_to_a_process_started_meanwhile() -> None:
    done = process(
        "import subprocess\n"
        "child = 'import signal, os; os.kill(os.getpid(), signal.SIGINT); print(\"lives\")'\n"
        "with GracefulStop(lambda number: print(number.name, flush=True)):\n"
        "    with held_back():\n"
        "        send(signal.SIGINT)\n"
        "        subprocess.run([sys.executable, '-c', child])\n"
        "        print('not yet', flush=True)\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("lives\nnot yet\nSIGINT\n", "", 0)


def test_a_worker_leaves_ctrl_c_to_its_parent_and_does_what_it_did_before() -> None:
    started: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    try:
        LeftToParent(started.append)(3)
        pickle.loads(pickle.dumps(LeftToParent(print)))
        send(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert started == [3]


def test_in_another_thread_it_does_nothing(handlers_as_before: dict[signal.Signals, Any]) -> None:
    seen: list[Any] = []

    def work() -> None:
        with GracefulStop() as stop:
            seen.extend(signal.getsignal(number) for number in SIGNALS)
            seen.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [*handlers_as_before.values(), None]


def test_other_ranks_drop_the_first_signal_and_obey_the_second() -> None:
    said: list[signal.Signals] = []
    with pytest.raises(KeyboardInterrupt), GracefulStop(said.append, ignore_first=True) as stop:
        send_both(signal.SIGTERM, signal.SIGINT)
    assert (said, stop.requested) == ([], None)


@pytest.mark.parametrize(("number", "end"), [("SIGTERM", "-15"), ("SIGINT", "1")])
def test_a_forked_child_ends_by_sigterm_as_ever_and_leaves_ctrl_c_to_its_parent(number: str, end: str) -> None:
    done = process(
        "with GracefulStop(lambda number: print('asked', flush=True)) as stop:\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        try:\n"
        f"            send(signal.{number})\n"
        "            time.sleep(5)\n"
        "        except KeyboardInterrupt:\n"
        "            os._exit(77)\n"
        "        os._exit(1)\n"
        "    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stop.requested, flush=True)\n"
        f"    send(signal.{number})\n"
        "    print(stop.requested.name, flush=True)\n"
    )
    name = number
    assert (done.stdout, done.stderr, done.returncode) == (f"{end} None\nasked\n{name}\n", "", 0)


def test_data_loader_workers_are_kept_out_of_it() -> None:
    """The main process is asked to stop while its workers go on and end as they always do."""
    done = process(
        "import torch\n"
        "from torch.utils.data import DataLoader\n"
        "with GracefulStop() as stop:\n"
        "    seen = 0\n"
        "    for batch in DataLoader(torch.arange(12), batch_size=2, num_workers=2, multiprocessing_context='fork'):\n"
        "        seen += len(batch)\n"
        "        if seen == 2:\n"
        "            send(signal.SIGTERM)\n"
        "    print(seen, stop.requested.name)\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("12 SIGTERM\n", "", 0)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_has_the_exit_code_of_a_shell(number: signal.Signals, code: int) -> None:
    error = TrainingInterruptedError("Saved.", number)
    copy: Callable[[Any], Any] = lambda e: pickle.loads(pickle.dumps(e))  # noqa: E731
    for each in (error, copy(error)):
        assert (each.exit_code, each.signal, str(each)) == (code, number, "Saved.")
    assert TrainingInterruptedError.exit_code == 1, "an instance's own"
