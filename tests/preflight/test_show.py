"""What is printed of a preflight, and where."""

from __future__ import annotations

import io
import re
import sys

import pytest

from yolo_stable.preflight import Preflight, StageResult, StageVerdict
from yolo_stable.preflight.show import Show

FAILED = StageResult(
    stage="loss",
    verdict=StageVerdict.FAIL,
    figure="nan",
    seconds=1.25,
    reason="box is nan",
    fix="Look.",
    details={"traceback": ["a.py:3"]},
)


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


def test_a_row_has_stage_verdict_time_and_figure_and_below_it_why_and_the_fix() -> None:
    out = io.StringIO()
    Show(out).stage(FAILED)
    assert [line.split() for line in out.getvalue().splitlines()] == [
        ["loss", "FAIL", "1.2", "s", "nan"],
        ["box", "is", "nan"],
        ["fix", "Look."],
    ]
    assert "\x1b" not in out.getvalue()
    assert not any(line.endswith(" ") for line in out.getvalue().splitlines())


def test_words_stay_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    out = Terminal()
    path = "images/train/a-rather-long-name-of-a-file-from-a-camera.jpg"
    Show(out).stage(
        StageResult(stage="data", verdict=StageVerdict.FAIL, figure="1 of 16", reason=f"{path} is no image at all")
    )
    lines = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in out.getvalue().splitlines()]
    assert lines == ["data           FAIL    0.0 s  1 of 16", " " * 30 + path, " " * 30 + "is no image at all"]


def test_frames_are_printed_when_they_are_asked_for() -> None:
    out = io.StringIO()
    Show(out, traceback=True).stage(FAILED)
    assert out.getvalue().splitlines()[-1].strip() == "a.py:3"


def test_the_verdict_is_one_line_however_long() -> None:
    out = io.StringIO()
    long = StageResult(stage="data", verdict=StageVerdict.FAIL, reason="label " * 100)
    Show(out).verdict(Preflight(stages=(long,)))
    assert len(out.getvalue().splitlines()) == 1


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    Show(out).stage(FAILED)
    assert "\x1b[1;31mFAIL" in out.getvalue()


def test_on_a_terminal_the_stage_under_way_is_shown_and_stdout_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else what Ultralytics prints would find its way around whoever keeps it quiet."""
    busy, out = Terminal(), io.StringIO()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", busy)
    before = sys.stdout
    show = Show(out)
    show.begin("forward")
    assert sys.stdout is before
    show.stage(FAILED)
    assert "forward ..." in busy.getvalue()
    assert "forward ..." not in out.getvalue()
