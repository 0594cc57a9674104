"""What is printed when nobody reads it any more: real pipes, a terminal that hangs up, a full disk."""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from yolo_stable._shared.output import Outlet, surviving
from yolo_stable.runlog.reader import read_events

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the pipes of POSIX")
Arguments = Callable[..., dict[str, Any]]
PIPE_OF_ONE_LINE = "head -n 1"


@pytest.fixture
def broken() -> Iterator[io.TextIOWrapper]:
    """Return a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        yield stream


class TestOutlet:
    def test_what_can_be_written_is_written(self) -> None:
        stream = io.StringIO()
        outlet = Outlet(stream)
        assert outlet.write("one ") == 4
        outlet.writelines(["two ", "three"])
        outlet.flush()
        assert stream.getvalue() == "one two three"
        assert outlet.isatty() is False
        assert outlet.getvalue() == "one two three"

    def test_a_closed_pipe_is_replaced_by_nothing(self, broken: io.TextIOWrapper) -> None:
        outlet = Outlet(broken)
        assert outlet.write("lost") == 4
        outlet.flush()
        broken.write("also what others write to it directly\n")
        broken.flush()
        assert os.write(broken.fileno(), b"and past Python") == 15

    def test_a_stream_that_was_closed_is_silent(self) -> None:
        stream = io.StringIO()
        stream.close()
        outlet = Outlet(stream)
        assert outlet.write("lost") == 4
        outlet.flush()

    def test_a_full_disk_is_an_error_unless_the_work_matters_more(self) -> None:
        with open("/dev/full", "w") as full, open(os.devnull, "w") as null:
            outlet = Outlet(full)
            outlet.write("lost")
            with pytest.raises(OSError, match="No space left"):
                outlet.flush()
            Outlet(full, whatever=True).flush()
            os.dup2(null.fileno(), full.fileno())  # what is still to be flushed has to go somewhere

    def test_a_text_that_cannot_be_encoded_is_an_error(self) -> None:
        outlet = Outlet(io.TextIOWrapper(io.BytesIO(), encoding="ascii"), whatever=True)
        with pytest.raises(UnicodeEncodeError):
            outlet.write("\N{SNOWMAN}")


class TestSurviving:
    def test_streams_and_handlers_are_as_before_afterwards(self) -> None:
        logger, handler = logging.getLogger("ultralytics"), logging.StreamHandler(io.StringIO())
        logger.addHandler(handler)
        before = sys.stdout, sys.stderr, handler.stream
        try:
            with surviving():
                assert isinstance(sys.stdout, Outlet)
                assert isinstance(handler.stream, Outlet)
            assert (sys.stdout, sys.stderr, handler.stream) == before
        finally:
            logger.removeHandler(handler)

    def test_a_stream_that_somebody_puts_in_meanwhile_stays(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "stdout", sys.stdout)
        with surviving():
            sys.stdout = mine = io.StringIO()
        assert sys.stdout is mine

    def test_sigpipe_does_not_kill_meanwhile(self) -> None:
        before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        try:
            with surviving():
                assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
        finally:
            signal.signal(signal.SIGPIPE, before)


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run ``yolo-stable`` in a shell; its exit code is printed last."""
    line = f"{sys.executable} -m yolo_stable {command}; echo ${{PIPESTATUS[0]}}"
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("presets list | true", 0),
        (f"presets show stable | {PIPE_OF_ONE_LINE}", 0),
        ("--help 2>&1 | true", 0),
        ("presets list >&-", 0),
        ("train nowhere.yaml 2>&1 | true", 2),
        ("check nowhere.yaml >&- 2>&- <&-", 2),
    ],
)
def test_a_verb_that_nobody_reads_ends_quietly_with_its_own_code(command: str, code: int) -> None:
    done = shell(command)
    assert done.stdout.splitlines()[-1] == str(code)
    assert done.stderr == ""


@pytest.mark.parametrize("verb", ["check", "report"])
def test_a_verb_does_its_work_whoever_reads(
    verb: str, tmp_path: Path, shapes: Callable[..., str], arguments: Arguments
) -> None:
    if verb == "check":
        made, command = tmp_path / "found.json", f"check {shapes()} --json {tmp_path}/found.json"
    else:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "results.csv").write_text("epoch,time,train/box_loss\n1,1.0,2.0\n")
        made, command = tmp_path / "page.html", f"report {tmp_path}/run --out {tmp_path}/page.html"
    done = shell(f"{command} 2>&1 | true")
    assert (done.stdout, done.stderr) == ("0\n", "")
    assert made.stat().st_size > 0


SCRIPT = """
import json, signal, sys
from yolo_stable import StableDetectionTrainer

signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as scripts do that are to end with `head`
trainer = StableDetectionTrainer(overrides=json.loads(sys.argv[1]))
trainer.add_callback("on_train_batch_end", lambda trainer: print("a line of the user's own", flush=True))
print("begin", flush=True)
trainer.train()
"""


@pytest.mark.usefixtures("warm_programs")
@pytest.mark.parametrize("how", ["command | head -n 1", "script with a terminal that hangs up"])
def test_a_training_goes_on_when_its_reader_leaves(how: str, tmp_path: Path, arguments: Arguments) -> None:
    settings = arguments(epochs=3, verbose=True)
    if how.startswith("command"):
        words = [f"{key}={value}" for key, value in settings.items() if key != "data"]
        command = [sys.executable, "-m", "yolo_stable", "train", settings["data"], *words]
        reader, writer = os.pipe()
    else:
        command = [sys.executable, "-c", SCRIPT, json.dumps(settings)]
        reader, writer = os.openpty()
    process = subprocess.Popen(command, stdout=writer, stderr=writer, cwd=tmp_path, start_new_session=True)
    try:
        os.close(writer)
        while how.startswith("script") and b"begin" not in os.read(reader, 1000):
            pass  # what is printed outside of the training is the script's own affair
        assert os.read(reader, 1)
        os.close(reader)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        process.wait()
    folder = Path(settings["project"]) / "run"
    events = list(read_events(folder / "guard.jsonl"))
    assert [event["epoch"] for event in events if event["event"] == "epoch"] == [1, 2, 3]
    assert (events[-1]["event"], events[-1]["status"]) == ("end", "done")
    assert len((folder / "results.csv").read_text().splitlines()) == 4
    assert json.loads((folder / "summary.json").read_text())["status"] == "done"
    assert (folder / "weights" / "last.pt").stat().st_size > 0
