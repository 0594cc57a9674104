"""``comparison.json``: written whole, held by one process, never taken for that of another call."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from comparing_rig import compare_call

from yolo_stable.compare import state as state_module
from yolo_stable.compare.call import CompareCall
from yolo_stable.compare.fingerprint import DATA, FINGERPRINT
from yolo_stable.compare.outcome import DONE, INTERRUPTED, TrialOutcome
from yolo_stable.compare.state import LOCK, NAME, State, default_folder
from yolo_stable.errors import InvalidCallError, YoloStableError

CALL = compare_call("optimizer=SGD", lr0="0.01,0.02")


def state_of(folder: Path, call: CompareCall = CALL) -> State:
    return State(folder, call.record(), call.trials)


def test_what_became_of_a_run_is_there_for_the_next_process(tmp_path: Path) -> None:
    first, second = CALL.trials
    with state_of(tmp_path / "out") as state:
        assert state.new
        state.begin(first)
        state.end(first, TrialOutcome(status=DONE, exit_code=0))
        state.begin(second)
    first.folder(tmp_path / "out").mkdir()
    with state_of(tmp_path / "out") as state:
        assert not state.new
        assert (state.outcome(first).status, state.outcome(second).status) == ("done", "running")
        assert (state.is_finished(first), state.is_finished(second)) == (True, False)
        state.begin(second)
    content = json.loads((tmp_path / "out" / NAME).read_text())
    assert (content["schema"], [run["starts"] for run in content["runs"]]) == (1, [1, 2])


def test_a_run_whose_folder_was_deleted_is_wanted_again(tmp_path: Path) -> None:
    first = CALL.trials[0]
    with state_of(tmp_path / "out") as state:
        state.begin(first)
        state.end(first, TrialOutcome(status=DONE))
        assert not state.is_finished(first)
        state.begin(first)
        state.end(first, TrialOutcome(status=INTERRUPTED, reason="SIGTERM"))
    assert state_of(tmp_path / "out").outcome(first).reason == "SIGTERM"


def test_the_folder_of_another_call_is_refused_with_what_differs(tmp_path: Path) -> None:
    with state_of(tmp_path) as state:
        state.begin(CALL.trials[0])
    other = compare_call("optimizer=SGD", lr0="0.01,0.03", epochs=9)
    with pytest.raises(
        InvalidCallError, match=r"holds another comparison: --lr0: 0.01,0.02 before, 0.01,0.03 now; epochs: 3 "
    ):
        state_of(tmp_path, other)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InvalidCallError, match=r"is not the folder of a comparison: it holds thesis"):
        state_of(tmp_path)
    with pytest.raises(InvalidCallError, match="is not the folder of a comparison"):
        state_of(tmp_path / "thesis.tex")
    with pytest.raises(InvalidCallError, match="cannot be made or written"), state_of(Path("/proc/comparison")):
        pass


@pytest.mark.parametrize(
    "text", ['{"schema": 1', "[]", '{"schema": 2, "call": {}, "runs": []}', '{"schema": 1}', "\xff"]
)
def test_a_damaged_file_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / NAME).write_text(text, encoding="latin-1")
    with pytest.raises(InvalidCallError, match=re.escape(str(tmp_path / NAME))) as caught:
        state_of(tmp_path)
    assert "Name a new folder with --out" in str(caught.value)


def test_two_processes_never_work_in_one_folder(tmp_path: Path) -> None:
    with state_of(tmp_path):
        hold = f"from filelock import FileLock; FileLock({str(tmp_path / LOCK)!r}, timeout=0).acquire()"
        done = subprocess.run([sys.executable, "-c", hold], capture_output=True, text=True, check=False)
        assert "Timeout" in done.stderr
        with pytest.raises(InvalidCallError, match="another process runs the comparison"), state_of(tmp_path):
            pass
    with state_of(tmp_path) as state:
        assert not state.new


def test_without_a_folder_the_same_call_finds_its_own_and_another_one_the_next(tmp_path: Path) -> None:
    below, other = tmp_path / "runs" / "compare", compare_call("optimizer=SGD", lr0="0.01,0.03")
    folders = []
    for call in (CALL, other, CALL, other):
        folder = default_folder(call.record(), below)
        folders.append(folder.name)
        with state_of(folder, call) as state:
            state.begin(call.trials[0])
    assert folders == ["compare", "compare-2", "compare", "compare-2"]
    (below / NAME).write_text("damaged")
    assert default_folder(CALL.record(), below).name == "compare-3"


def test_a_full_disk_is_said_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with state_of(tmp_path) as state:
        monkeypatch.setattr(state_module, "write_whole", full)
        with pytest.raises(YoloStableError, match="could not be written: No space left on device"):
            state.begin(CALL.trials[0])


def test_other_data_under_the_same_name_are_refused(tmp_path: Path) -> None:
    out, trials = tmp_path / "out", CALL.trials
    with State(out, {**CALL.record(), DATA: "1"}, trials) as state:
        state.begin(trials[0])
    with pytest.raises(InvalidCallError, match=r"holds another comparison: content of the data: 1 before, 2 now"):
        State(out, {**CALL.record(), DATA: "2"}, trials)


def test_a_comparison_that_kept_no_fingerprint_goes_on(tmp_path: Path) -> None:
    out, trials = tmp_path / "out", CALL.trials
    record = {key: value for key, value in CALL.record().items() if key not in FINGERPRINT}
    with State(out, record, trials) as state:
        state.end(trials[0], TrialOutcome(status=DONE, exit_code=0))
    with State(out, CALL.record(), trials) as state:
        assert state.outcome(trials[0]).status == DONE
