"""The figures of one run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from yolo_stable.compare.measure import TrialFigures, measure
from yolo_stable.report.figures import figures
from yolo_stable.report.run import read_run

BOX = ("metrics/mAP50(B)", "metrics/mAP50-95(B)")


def run(
    folder: Path, columns: tuple[str, ...], *rows: tuple[float, ...], events: list[dict[str, Any]] | None = None
) -> TrialFigures:
    lines = [",".join(("epoch", "time", *columns)), *(",".join(map(str, row)) for row in rows)]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")
    if events is not None:
        (folder / "guard.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return measure(folder)


def test_the_loss_is_the_sum_of_the_last_epoch_s_items(tmp_path: Path) -> None:
    columns = ("train/box_loss", "train/cls_loss", "val/box_loss", "guard/rejected")
    assert run(tmp_path, columns, (1, 1, 9, 9, 9, 9), (2, 2, 1.5, 2.25, 7, 3)).loss == 3.75
    assert math.isnan(run(tmp_path, columns, (1, 1, math.nan, 2, 7, 3)).loss or 0.0)


def test_the_best_epoch_is_that_of_the_highest_score_and_of_equals_the_first(tmp_path: Path) -> None:
    found = run(tmp_path, BOX, (1, 1, 0.9, 0.2), (2, 2, 0.5, 0.3), (3, 3, 0.6, 0.3), (4, 4, 0.7, math.nan))
    assert (found.score, found.second, found.best_epoch, found.epochs) == (0.3, 0.5, 2, 4)


@pytest.mark.parametrize(
    ("columns", "metric", "score"),
    [
        pytest.param(BOX, "metrics/mAP50-95(B)", 0.2, id="boxes"),
        pytest.param((*BOX, "metrics/mAP50(M)", "metrics/mAP50-95(M)"), "metrics/mAP50-95(M)", 0.4, id="masks"),
        pytest.param((*BOX, "metrics/mAP50(P)", "metrics/mAP50-95(P)"), "metrics/mAP50-95(P)", 0.4, id="keypoints"),
        pytest.param(("metrics/accuracy_top1", "metrics/accuracy_top5"), "metrics/accuracy_top1", 0.1, id="classes"),
        pytest.param(("val/box_loss",), None, None, id="no validation"),
    ],
)
def test_each_task_has_its_score(
    tmp_path: Path, columns: tuple[str, ...], metric: str | None, score: float | None
) -> None:
    found = run(tmp_path, columns, (1, 1, *[0.1 * (n + 1) for n in range(len(columns))]))
    assert found.metric == metric
    assert found.score == (None if score is None else pytest.approx(score))


def epoch(number: int, mean: float | None, largest: float | None) -> dict[str, Any]:
    return {"event": "epoch", "epoch": number, "norm_mean": mean, "norm_max": largest}


def test_norms_are_those_of_the_steps_that_were_noted_and_the_largest_is_known_from_the_epochs(tmp_path: Path) -> None:
    noted = [{"event": "steps", "epoch": 1, "step": norm, "norm": norm} for norm in range(1, 22)]
    found = run(
        tmp_path, BOX, events=[*noted, {"event": "steps", "epoch": 1, "step": 22, "norm": "inf"}, epoch(1, 5.0, 40.0)]
    )
    assert (found.norm_median, found.norm_95) == (pytest.approx(11.0, rel=0.1), pytest.approx(20.0, rel=0.1))
    assert found.norm_max == 40.0


def test_without_notes_the_epochs_have_to_do(tmp_path: Path) -> None:
    found = run(tmp_path, BOX, events=[epoch(1, 2.0, 9.0), epoch(2, 4.0, 7.0), epoch(3, None, None)])
    assert (found.norm_median, found.norm_95, found.norm_max) == (3.0, 4.0, 9.0)


def test_rejections_and_rollbacks_are_counted(tmp_path: Path) -> None:
    climbs = [
        {"event": "climb", "epoch": 1, "rung": rung} for rung in ("repair", "roll_back", "lower_precision", "halt")
    ]
    found = run(tmp_path, BOX, events=[*climbs, {"event": "rejection", "epoch": 1}])
    assert (found.rejections, found.rollbacks) == (1, 2)


def test_of_a_stock_run_the_guard_s_figures_are_not_known(tmp_path: Path) -> None:
    found = run(tmp_path, BOX, (1, 4, 0.5, 0.25))
    assert (found.rejections, found.rollbacks, found.norm_max, found.starts) == (None, None, None, None)
    assert (found.score, found.epoch_seconds) == (0.25, 4.0)


def test_the_time_of_an_epoch_is_counted_from_where_the_process_began(tmp_path: Path) -> None:
    """The column counts from the start of the process: resumed with its third epoch, the run's clock begins anew."""
    rows = [(1, 10.0), (2, 16.0), (3, 19.0), (4, 25.0)]
    assert run(tmp_path, (), *rows).epoch_seconds == 6.0  # of 10, 6, 3, 6
    starts = [{"event": "start", "epoch": 0, "epochs_before": before} for before in (0, 2)]
    found = run(tmp_path, (), *rows, events=starts)
    assert (found.epoch_seconds, found.starts) == (8.0, 2)  # of 10, 6, 19, 6


def test_page_and_table_say_the_same_of_a_run_that_was_resumed(tmp_path: Path) -> None:
    """Killed in its second epoch and resumed: the second epoch and its rejection are in the log twice."""
    events = [
        {"event": "start", "epoch": 0, "epochs_before": 0},
        {"event": "steps", "epoch": 1, "step": 1, "norm": 2.0},
        epoch(1, 2.0, 3.0),
        {"event": "rejection", "epoch": 2, "reason": "loss nan"},
        {"event": "incident", "epoch": 2, "cause": "data", "kind": "micro_batch"},
        {"event": "start", "epoch": 0, "epochs_before": 1},
        {"event": "rejection", "epoch": 2, "reason": "loss nan"},
        {"event": "incident", "epoch": 2, "cause": "data", "kind": "micro_batch"},
        epoch(2, 2.5, 4.0),
    ]
    found = run(tmp_path, BOX, (1, 8.0, 0.5, 0.25), (2, 12.0, 0.6, 0.3), events=events)
    page = {figure.name: figure.value for figure in figures(read_run(tmp_path))}
    assert (found.rejections, found.epoch_seconds, found.norm_max) == (1, 10.0, 4.0)
    assert (page["rejected"], page["per epoch"], page["largest"]) == ("1", "10 s", "4")
    history = read_run(tmp_path).history
    assert (history.tally.incidents, len(history.incidents), history.tally.causes) == (1, 1, {"data": 1})


def test_of_a_run_that_is_not_there_nothing_is_known(tmp_path: Path) -> None:
    assert measure(tmp_path / "gone") == TrialFigures()
