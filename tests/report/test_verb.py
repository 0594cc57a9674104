"""The verb ``report``, and the page that every training leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer
from report_rig import guarded_run, stock_run, write_args
from ultralytics.utils import LOGGER
from verb import carried_out

from yolo_stable.chaos import NAN, Fault
from yolo_stable.cli.report import report
from yolo_stable.errors import InvalidCallError
from yolo_stable.report import read_run
from yolo_stable.trainer import finish as ending
from yolo_stable.trainer.trainers import StableDetectionTrainer


def answered(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    return carried_out(capsys, monkeypatch, "report", *words)


def test_the_path_of_the_page_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = guarded_run(tmp_path / "train")
    assert answered(capsys, monkeypatch, run) == (0, f"{run / 'report.html'}\n", "")
    other = stock_run(tmp_path / "stock")
    out = tmp_path / "deep" / "many.html"
    assert answered(capsys, monkeypatch, run, other, "--out", out) == (0, f"{out}\n", "")
    assert out.is_file()


def test_a_call_that_is_wrong_is_one_line_and_two(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (
        [tmp_path / "nowhere"],
        [write_args(tmp_path)],
        [stock_run(tmp_path / "ok"), tmp_path / "nowhere"],
        [],
    ):
        code, out, err = answered(capsys, monkeypatch, *words)
        assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert not (tmp_path / "ok" / "report.html").exists()


def test_a_folder_whose_name_is_no_text_is_read_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"run\xff")
    try:
        guarded_run(folder)
    except OSError:
        pytest.skip("this file system takes text only")
    words = [sys.executable, "-m", "yolo_stable", "report", str(folder)]
    done = subprocess.run(words, capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (folder / "report.html").is_file()


def test_the_page_is_opened_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(typer, "launch", opened.append)
    report([stock_run(tmp_path)], out=None, show=True)
    assert opened == [str(tmp_path / "report.html")]


def test_a_report_needs_neither_torch_nor_ultralytics(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from yolo_stable.report import write_report\n"
        f"write_report([Path({str(guarded_run(tmp_path))!r})])\n"
        "print({'torch', 'ultralytics', 'numpy', 'cv2'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.stdout, done.stderr) == ("set()\n", "")


# ---- at the end of a run -------------------------------------------------------------------------------------------------


class Books:
    """Stands for what a trainer has written down."""

    def finish(self, *_: Any) -> list[tuple[str, str]]:
        return [("details", "summary.json")]


class Ended(ending.RunEnding):
    """The end of a trainer that is a stub."""

    def __init__(self, folder: Path, *, report: bool = True) -> None:
        self._trainer: Any = SimpleNamespace(
            guard=SimpleNamespace(counts=None),
            plan=SimpleNamespace(trainer=SimpleNamespace(report=report)),
            run_log=Books(),
            save_dir=folder,
            metrics={},
        )
        self._alerts: Any = SimpleNamespace(ended=lambda status, message: None)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(LOGGER, "info", lines.append)
    monkeypatch.setattr(LOGGER, "warning", lambda line: lines.append(f"WARNING {line}"))
    return lines


@pytest.mark.parametrize("status", ["done", "halted", "interrupted", "failed"])
def test_every_end_leaves_a_page_and_names_it(tmp_path: Path, said: list[str], status: str) -> None:
    guarded_run(tmp_path / "run")
    Ended(tmp_path / "run").close_books(status, "")
    assert (tmp_path / "run" / "report.html").is_file()
    assert "report.html" in said[-1]
    assert not any(line.startswith("WARNING") for line in said)


def test_no_page_is_made_when_it_is_not_wanted_or_on_another_rank(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded_run(tmp_path)
    Ended(tmp_path, report=False).close_books("done", "")
    monkeypatch.setattr(ending, "RANK", 1)
    Ended(tmp_path).close_books("done", "")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "error", [InvalidCallError("no\nroom"), ZeroDivisionError("no\nroom"), MemoryError("no\nroom")]
)
def test_a_page_that_cannot_be_made_is_one_line_and_the_books_are_closed(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: Any) -> None:
        raise error

    monkeypatch.setattr(ending, "write_report", broken)
    Ended(guarded_run(tmp_path)).close_books("done", "")
    assert said[0].startswith(f"WARNING The report could not be written: {type(error).__name__}: no")
    assert len(said[0].splitlines()) == 1
    assert "summary.json" in said[-1]


def test_a_training_leaves_a_page_that_names_the_image(arguments: Callable[..., dict[str, Any]]) -> None:
    fault = Fault("pixel", NAN, at=(2,)).on(StableDetectionTrainer)
    trainer = fault(overrides=arguments(epochs=1, workers=0))
    trainer.train()
    assert trainer.chaos.fired == 1
    text = (trainer.save_dir / "report.html").read_text(encoding="utf-8")
    run = read_run(trainer.save_dir)
    assert run.status == "done"
    assert "Finished: 1 epoch, best mAP50-95" in text
    assert "The guard rejected 1 of 4 batches. Cause found: 1 file with NaN pixels." in text
    assert run.incidents[0].guilty[0] in text
