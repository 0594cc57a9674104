"""What the tests of comparisons share: runs that take milliseconds, and a page that is not drawn."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparing_rig import Pages

from yolo_stable.compare import run_trial


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> Pages:
    """Return what stands for the module that draws the page."""
    module = Pages()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.fixture
def fates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pages: Pages) -> Callable[..., None]:
    """Return what says what becomes of the runs, by name; they are trained by the stub and looked at often."""
    monkeypatch.setattr(run_trial, "POLL", 0.01)
    monkeypatch.setenv("STUB_PLAN", str(tmp_path / "plan.json"))
    monkeypatch.setenv("STUB_STARTS", str(tmp_path / "starts.txt"))

    def decide(**by_name: dict[str, Any]) -> None:
        (tmp_path / "plan.json").write_text(json.dumps(by_name))

    decide()
    return decide


@pytest.fixture
def starts(tmp_path: Path) -> Callable[[], list[str]]:
    """Return the runs that were started, each with the epochs that it had before."""

    def read() -> list[str]:
        path = tmp_path / "starts.txt"
        return path.read_text().splitlines() if path.is_file() else []

    return read
