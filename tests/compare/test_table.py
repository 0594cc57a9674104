"""The table, for people and as JSON."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

from rich.console import Console

from yolo_stable._shared.strict_json import strict
from yolo_stable.compare.measure import TrialFigures
from yolo_stable.compare.outcome import TrialOutcome
from yolo_stable.compare.ranking import TrialRow
from yolo_stable.compare.table import print_table, to_json
from yolo_stable.compare.trial import Trial


def row(name: str, seed: int, status: str = "done", reason: str = "", **figures: float) -> TrialRow:
    trial = Trial(name=f"{name},seed={seed}", group=name, choice={"seed": seed}, data="d", words=("d",))
    measured = TrialFigures(metric="metrics/mAP50-95(B)", **figures)  # pyright: ignore[reportArgumentType]
    return TrialRow(trial=trial, outcome=TrialOutcome(status=status, reason=reason), measured=measured)


ROWS = [
    row("SGD", 0, score=0.25, second=0.5, loss=3.25, best_epoch=2, norm_median=4.0, norm_95=9.5, norm_max=123.4,
        rejections=3, rollbacks=1, epoch_seconds=2.5, starts=2),
    row("SGD", 1, score=0.35, second=0.6, loss=3.75),
    row("[red]Adam", 0, "failed", "ended by SIGSEGV [bold]"),
]  # fmt: skip


def printed(**options: object) -> str:
    out = io.StringIO()
    print_table(ROWS, ["A note."], Console(file=out, width=160, **options))  # pyright: ignore[reportArgumentType]
    return out.getvalue()


def test_a_row_has_all_figures_and_the_best_is_first() -> None:
    lines = [line.split() for line in printed().splitlines() if line.strip()]
    rows = [line for line in lines if "seed=" in line[0]]
    assert rows[0][:5] == ["SGD,seed=1", "done", "3.75", "0.35", "0.6"]
    assert rows[1] == ["SGD,seed=0", "done,", "resumed", "3.25", "0.25", "0.5", "2", "4", "9.5", "123", "3", "1", "2.5"]
    assert rows[2][:4] == ["[red]Adam,seed=0", "failed", "-", "-"]


def test_several_seeds_have_a_mean_a_spread_and_all_reasons_are_told() -> None:
    text = printed()
    assert "2 of 2   3.5 (0.5)   0.3 (0.1)   0.55 (0.1)" in text
    assert "[red]Adam,seed=0: failed: ended by SIGSEGV [bold]" in text
    assert "A note." in text
    assert text.rstrip().endswith("1 of 3 runs are not done and do not count here.")


def test_colours_are_for_terminals() -> None:
    assert "\x1b[" not in printed()
    assert "\x1b[" in printed(force_terminal=True)


def test_the_json_has_all_of_it(tmp_path: Path) -> None:
    rows = [*ROWS, row("RAdam", 0, loss=math.nan)]
    content = json.loads(json.dumps(strict(to_json(rows, ["A note."], tmp_path, call={"epochs": 3})), allow_nan=False))
    assert (content["schema"], content["call"], content["notes"]) == (1, {"epochs": 3}, ["A note."])
    assert [run["name"] for run in content["runs"]][:2] == ["SGD,seed=1", "SGD,seed=0"]
    assert content["runs"][1]["rejections"] == 3
    assert content["runs"][1]["folder"] == str(tmp_path / "SGD,seed=0")
    assert {run["loss"] for run in content["runs"]} >= {"nan", 3.25}
    (group,) = (group for group in content["groups"] if group["name"] == "SGD")
    assert group["rows"] == ["SGD,seed=0", "SGD,seed=1"]
    assert group["loss"] == {"mean": 3.5, "width": 0.5}
    assert content["conclusion"]
