"""One comparison of real trainings, from the command to the table: two optimizers."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yolo_stable.cli import main as cli


@pytest.mark.usefixtures("warm_programs")
def test_two_optimizers_are_compared(
    tmp_path: Path,
    arguments: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = arguments(epochs=1, workers=0)
    data = given.pop("data")
    for key in ("project", "name", "exist_ok", "optimizer", "lr0"):
        del given[key]
    out, result = tmp_path / "out", tmp_path / "result.json"
    words = [data, *(f"{key}={value}" for key, value in given.items())]
    options = ["--optimizers", "SGD,MuSGD", "--out", str(out), "--json", str(result)]
    monkeypatch.setattr(sys, "argv", ["yolo-stable", "compare", *words, *options])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # Typer puts its own there
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0, capsys.readouterr().err
    runs = {run["name"]: run for run in json.loads(result.read_text())["runs"]}
    assert set(runs) == {"optimizer=SGD", "optimizer=MuSGD"}
    for run in runs.values():
        assert (run["status"], run["exit_code"], run["epochs"], run["rejections"]) == ("done", 0, 1, 0)
        assert run["metric"] == "metrics/mAP50-95(B)"
        assert 0 < run["norm_median"] <= run["norm_max"]
        assert run["epoch_seconds"] > 0
    # The same data in the same order from the same weights, and other steps.
    assert runs["optimizer=SGD"]["loss"] != runs["optimizer=MuSGD"]["loss"]
    assert runs["optimizer=SGD"]["loss"] == pytest.approx(runs["optimizer=MuSGD"]["loss"], rel=0.3)
    text = capsys.readouterr().out
    assert "optimizer=MuSGD" in text
    assert f"Page of all runs: {out / 'report.html'}" in text
    page = (out / "report.html").read_text()
    assert all(name in page for name in runs)
