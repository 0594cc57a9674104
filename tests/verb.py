"""The command, carried out in the process of the test."""

from __future__ import annotations

import sys

import pytest

from yolo_stable.cli import main as cli


def carried_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: object
) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of ``yolo-stable`` with these words."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer puts its own there
    monkeypatch.setattr(sys, "argv", ["yolo-stable", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    printed = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, printed.out, printed.err
