"""One run of a comparison, from wherever it was."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparing_rig import Fates, Starts, compare_call, stub

from yolo_stable.compare import run_trial as module
from yolo_stable.compare.outcome import STOCK_END, TrialOutcome
from yolo_stable.compare.run_trial import run_trial

CALL = compare_call("optimizer=SGD", lr0="0.01,0.02", stock=True)
RUN, STOCK = CALL.trials[0], CALL.trials[2]


def train(tmp_path: Path, trial: Any = RUN, **options: Any) -> TrialOutcome:
    return run_trial(trial, tmp_path, launch=stub, **options)


def stopper(after: Callable[[], bool], sig: signal.Signals = signal.SIGTERM) -> Callable[[], signal.Signals | None]:
    return lambda: sig if after() else None


def rows(tmp_path: Path, trial: Any = RUN) -> list[str]:
    path = trial.folder(tmp_path) / "results.csv"
    return [line.split(",")[0] for line in path.read_text().splitlines()[1:]] if path.is_file() else []


@pytest.mark.parametrize(
    ("fate", "status", "reason"),
    [
        ("done", "done", ""),
        ("halted", "halted", "too many rejections"),
        ("failed", "failed", "Training failed: too many rejections"),
        ("refused", "failed", "train: data set gone.yaml is not there."),
        ("killed", "failed", "ended by SIGKILL, as the system does when memory runs out"),
    ],
)
def test_a_run_is_trained_to_its_end(tmp_path: Path, fates: Fates, fate: str, status: str, reason: str) -> None:
    fates(**{RUN.name: {"fate": fate}})
    outcome = train(tmp_path)
    assert (outcome.status, outcome.reason) == (status, reason)
    assert outcome.refused == (fate == "refused")


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_same_run_goes_on(
    tmp_path: Path, fates: Fates, starts: Starts, sig: signal.Signals
) -> None:
    fates(**{RUN.name: {"seconds": 0.1}})
    outcome = train(tmp_path, stop=stopper(lambda: rows(tmp_path) == ["1"], sig))
    assert (outcome.status, outcome.exit_code) == ("interrupted", 128 + sig)
    assert train(tmp_path).status == "done"
    assert rows(tmp_path) == ["1", "2", "3"]
    assert starts() == [f"{RUN.name} 0", f"{RUN.name} 1"]


def test_asked_to_end_before_it_began_nothing_is_started(tmp_path: Path, fates: Fates, starts: Starts) -> None:
    assert train(tmp_path, stop=lambda: signal.SIGTERM).status == "interrupted"
    assert starts() == []


def test_a_run_that_was_interrupted_before_its_first_checkpoint_begins_anew(
    tmp_path: Path, fates: Fates, starts: Starts
) -> None:
    RUN.folder(tmp_path).mkdir()
    (RUN.folder(tmp_path) / "guard.jsonl").write_text('{"event": "start"}\n')
    assert train(tmp_path).status == "done"
    assert starts() == [f"{RUN.name} 0"]
    assert '{"event": "start"}\n' not in (RUN.folder(tmp_path) / "guard.jsonl").read_text()


def test_a_run_whose_checkpoint_is_damaged_begins_anew(tmp_path: Path, fates: Fates, starts: Starts) -> None:
    RUN.last(tmp_path).parent.mkdir(parents=True)
    RUN.last(tmp_path).write_text("2")
    fates(**{RUN.name: {"damaged": True}})
    assert train(tmp_path).status == "done"
    assert starts() == [f"{RUN.name} 2", f"{RUN.name} 0"]
    assert rows(tmp_path) == ["1", "2", "3"]


def test_a_stock_run_begins_anew_as_it_would_go_on_from_rounded_weights(
    tmp_path: Path, fates: Fates, starts: Starts
) -> None:
    STOCK.last(tmp_path).parent.mkdir(parents=True)
    STOCK.last(tmp_path).write_text("2")
    assert train(tmp_path, STOCK).status == "done"
    assert starts() == [f"{STOCK.name} 0"]
    (STOCK.folder(tmp_path) / STOCK_END).write_text('{"status": "done"}')
    assert train(tmp_path, STOCK).status == "done"
    assert len(starts()) == 1  # it had been seen to its end


def test_a_run_that_ended_while_nobody_looked_is_taken_as_it_is(tmp_path: Path, fates: Fates, starts: Starts) -> None:
    fates(**{RUN.name: {"fate": "halted"}})
    assert train(tmp_path).status == "halted"
    assert train(tmp_path) == TrialOutcome(status="halted", reason="too many rejections")
    assert len(starts()) == 1


@pytest.mark.parametrize("killed", [False, True], ids=["trains on", "is killed as well"])
def test_a_run_whose_parent_was_killed_is_waited_for(
    tmp_path: Path, fates: Fates, starts: Starts, killed: bool
) -> None:
    fates(**{RUN.name: {"seconds": 0.1}})
    orphan = subprocess.Popen(stub(RUN, RUN.start_words(tmp_path)), stdout=subprocess.DEVNULL)
    while rows(tmp_path) != ["1"]:
        time.sleep(0.01)
    looks: list[float] = []

    def watch() -> None:
        looks.append(time.monotonic())
        if killed and len(looks) == 2:
            orphan.kill()

    try:
        assert train(tmp_path, watch=watch).status == "done"
    finally:
        orphan.kill()
        orphan.wait()
    assert looks
    assert rows(tmp_path) == ["1", "2", "3"]
    assert starts() == [f"{RUN.name} 0", *([f"{RUN.name} 1"] if killed else [])]


def test_a_run_whose_parent_was_killed_is_asked_to_end_like_any_other(tmp_path: Path, fates: Fates) -> None:
    fates(**{RUN.name: {"seconds": 5}})
    orphan = subprocess.Popen(stub(RUN, RUN.start_words(tmp_path)), stderr=subprocess.DEVNULL)
    try:
        while not (RUN.folder(tmp_path) / "guard.jsonl").is_file():
            time.sleep(0.01)
        outcome = train(tmp_path, stop=lambda: signal.SIGTERM)
        assert (outcome.status, outcome.reason) == ("interrupted", "SIGTERM: saved.")
    finally:
        orphan.kill()
        assert orphan.wait() == 143


@pytest.mark.parametrize("fate", ["done", "deaf"], ids=["saves", "has to be killed"])
def test_an_error_here_leaves_no_child_behind(
    tmp_path: Path, fates: Fates, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    """As a second Ctrl-C, and Ray that cancels a run, come as one."""
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    fates(**{RUN.name: {"seconds": 30, "fate": fate}})
    children: list[subprocess.Popen[bytes]] = []

    def start(argv: list[str], log: Path) -> Any:
        children.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))
        return children[0]

    def watch() -> None:
        if (RUN.folder(tmp_path) / "guard.jsonl").is_file():
            raise KeyboardInterrupt

    monkeypatch.setattr(module, "start", start)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, watch=watch)
    assert children[0].wait(timeout=60) == (143 if fate == "done" else -signal.SIGKILL)


def test_it_works_outside_of_the_main_thread(tmp_path: Path, fates: Fates) -> None:
    found: list[TrialOutcome] = []
    thread = threading.Thread(target=lambda: found.append(train(tmp_path)))
    thread.start()
    thread.join(10)
    assert [outcome.status for outcome in found] == ["done"]
