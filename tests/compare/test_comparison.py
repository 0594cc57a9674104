"""A whole comparison: to its end, interrupted, killed, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comparing_rig
import psutil
import pytest
from comparing_rig import Fates, Pages, Starts, compare_call, stub

from yolo_stable.compare.child import GONE, Orphan
from yolo_stable.compare.comparison import run_comparison
from yolo_stable.errors import InvalidCallError, TrainingInterruptedError, YoloStableError

Begin = Callable[[], "subprocess.Popen[str]"]
CALL = compare_call("optimizer=SGD", lr0="0.01,0.02", seeds="0,1")
NAMES = [trial.name for trial in CALL.trials]
TIMES = {"epoch_seconds", "folder", "log", "exit_code", "starts"}
"""What differs between a comparison and another one that was killed in between: the clock, the place, who saw it end."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def compare(out: Path, **options: Any) -> int:
    return run_comparison(CALL, out=out, launch=stub, **options)


def figures(path: Path) -> dict[str, Any]:
    """Return a result without what differs each time."""
    content = json.loads(path.read_text())
    runs = [{key: value for key, value in run.items() if key not in TIMES} for run in content["runs"]]
    groups = [{key: value for key, value in group.items() if key not in TIMES} for group in content["groups"]]
    return {"runs": runs, "groups": groups, "conclusion": content["conclusion"], "call": content["call"]}


def status(out: Path) -> dict[str, str]:
    return {run["name"]: run["status"] for run in json.loads((out / "comparison.json").read_text())["runs"]}


@pytest.fixture
def in_a_process(out: Path) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Return what starts the same comparison in a process that can be killed."""
    begun: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        argv = [sys.executable, comparing_rig.__file__ or "", str(out)]
        begun.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return begun[-1]

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.005)


def test_all_runs_are_trained_and_told(
    out: Path, fates: Fates, starts: Starts, pages: Pages, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare(out, json=out / "result.json") == 0
    assert starts() == [f"{name} 0" for name in NAMES]
    printed = capsys.readouterr()
    assert "4 runs of 3 epochs each" in printed.err
    assert f"{NAMES[0]}: done" in printed.err
    assert (
        "Best: lr0=0.02 with mAP50-95 0.205, 0.1 ahead of lr0=0.01. That is more than the spread over 2" in printed.out
    )
    assert figures(out / "result.json")["runs"][0]["score"] == pytest.approx(0.21)
    assert pages.made == [([out / name for name in NAMES], out / "report.html", "out: compare")]
    assert pages.conclusion.startswith("Best: lr0=0.02 with mAP50-95 0.205"), "the page says what the terminal says"


def test_a_run_that_fails_does_not_end_the_others(
    out: Path, fates: Fates, starts: Starts, pages: Pages, capsys: pytest.CaptureFixture[str]
) -> None:
    fates(**{NAMES[0]: {"fate": "killed"}, NAMES[1]: {"fate": "halted"}, NAMES[2]: {"fate": "refused"}})
    assert compare(out) == 1
    assert status(out) == dict(zip(NAMES, ["failed", "halted", "failed", "done"], strict=True))
    text = " ".join(capsys.readouterr().out.split())
    assert f"{NAMES[0]}: failed: ended by SIGKILL, as the system does when memory runs out" in text
    assert f"{NAMES[1]}: halted: too many rejections" in text
    assert f"{NAMES[2]}: failed: train: data set gone.yaml is not there." in text
    assert pages.made[0][0] == [out / name for name in NAMES if name != NAMES[2]]  # of which there is something
    assert (
        compare(out) == 1
    )  # again, without training what is over; the refused one has left nothing, and is tried again
    assert starts()[4:] == [f"{NAMES[2]} 0"]


def test_the_same_command_shows_a_finished_comparison_again(
    out: Path, fates: Fates, starts: Starts, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(out, json=out / "first.json")
    first = capsys.readouterr()
    assert compare(out, json=out / "second.json") == 0
    second = capsys.readouterr()
    assert len(starts()) == 4
    assert first.out == second.out
    assert json.loads((out / "first.json").read_text()) == json.loads((out / "second.json").read_text())
    assert "all done already" in second.err


def test_a_call_that_the_first_run_refuses_is_wrong_and_nothing_remains(
    out: Path, fates: Fates, starts: Starts
) -> None:
    fates(**{name: {"fate": "refused"} for name in NAMES})
    with pytest.raises(InvalidCallError, match=r"^train: data set gone.yaml is not there\.$"):
        compare(out)
    assert not out.exists()
    assert len(starts()) == 1


def test_a_page_that_cannot_be_drawn_does_not_take_the_table_away(
    out: Path, fates: Fates, pages: Pages, capsys: pytest.CaptureFixture[str]
) -> None:
    pages.error = YoloStableError("no space")
    assert compare(out) == 0
    assert capsys.readouterr().out.endswith("There is no page: no space\n")


def test_a_result_that_cannot_be_written_is_a_line(out: Path, fates: Fates) -> None:
    with pytest.raises(YoloStableError, match=r"/proc/result.json could not be written: "):
        compare(out, json=Path("/proc/result.json"))
    assert set(status(out).values()) == {"done"}


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sig", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_the_run_save_and_the_same_command_goes_on(
    tmp_path: Path, out: Path, fates: Fates, starts: Starts, in_a_process: Begin, sig: signal.Signals, code: int
) -> None:
    compare(tmp_path / "whole", json=tmp_path / "whole.json")
    fates(**{NAMES[1]: {"seconds": 0.3}})
    results = out / NAMES[1] / "results.csv"
    process = in_a_process()
    until(lambda: results.is_file() and results.read_text().count("\n") == 2)
    process.send_signal(sig)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    assert f"{sig.name}: the running training saves and ends; a second signal stops it at once." in err
    assert "1 of 4 runs are over. The same command continues" in err
    assert status(out) == dict(zip(NAMES, ["done", "interrupted", "waiting", "waiting"], strict=True))
    fates()
    assert compare(out, json=tmp_path / "out.json") == 0
    assert starts()[4:] == [f"{NAMES[0]} 0", f"{NAMES[1]} 0", f"{NAMES[1]} 1", f"{NAMES[2]} 0", f"{NAMES[3]} 0"]
    assert figures(tmp_path / "out.json") == figures(tmp_path / "whole.json")


@pytest.mark.parametrize("child_too", [False, True], ids=["alone", "with its child"])
def test_a_comparison_that_was_killed_equals_one_that_was_not(
    tmp_path: Path, out: Path, fates: Fates, starts: Starts, in_a_process: Begin, child_too: bool
) -> None:
    """The parent is killed for real, in the middle of the second run; its child trains on, or is killed with it."""
    compare(tmp_path / "whole", json=tmp_path / "whole.json")
    fates(**{NAMES[1]: {"seconds": 0.3}})
    results = out / NAMES[1] / "results.csv"
    process = in_a_process()
    until(lambda: results.is_file() and results.read_text().count("\n") == 2)
    (child,) = psutil.Process(process.pid).children()
    process.kill()
    if child_too:
        child.kill()
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert status(out)[NAMES[1]] == "running"
    assert compare(out, json=tmp_path / "out.json") == 0
    again = [f"{NAMES[1]} 1"] if child_too else []
    assert starts()[4:] == [f"{NAMES[0]} 0", f"{NAMES[1]} 0", *again, f"{NAMES[2]} 0", f"{NAMES[3]} 0"]
    assert figures(tmp_path / "out.json") == figures(tmp_path / "whole.json")
    assert (
        Orphan(child).poll() == GONE
    )  # at most a zombie, where the first process of a container takes no note of ends


def test_killed_at_any_moment_it_goes_on(tmp_path: Path, out: Path, fates: Fates, in_a_process: Begin) -> None:
    """Killed again and again, each time a little later, until there is nothing left to be killed."""
    compare(tmp_path / "whole", json=tmp_path / "whole.json")
    fates(**{name: {"seconds": 0.05} for name in NAMES})
    kills = 0
    for attempt in range(30):
        process = in_a_process()
        time.sleep(0.3 + 0.1 * attempt)
        process.kill()
        process.communicate(timeout=120)
        kills += process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills >= 2, "it was never killed in the middle"
    assert compare(out, json=tmp_path / "out.json") == 0
    assert figures(tmp_path / "out.json") == figures(tmp_path / "whole.json")


def test_asked_to_end_before_the_first_run_it_says_how_to_go_on(out: Path, fates: Fates, starts: Starts) -> None:
    def backend(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterruptedError, match="SIGTERM: 0 of 4 runs are over") as caught:
        compare(out, backend=backend)
    assert caught.value.exit_code == 143
    assert starts() == []
