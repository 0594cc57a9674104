from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from report_rig import Log, guarded_run, stock_run, write_args, write_results

from yolo_stable.report import read_run
from yolo_stable.report.charts import FEW, page_data, thin
from yolo_stable.report.figures import figures, seconds_per_epoch
from yolo_stable.report.settings_table import changed, differing


def chart(data: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in data["charts"] if one["id"] == name)


def test_a_run_without_steps_is_drawn_by_epochs(tmp_path: Path) -> None:
    data = page_data([read_run(write_results(tmp_path, (0.1, 0.2), guard=True))])
    norm = chart(data, "norm")
    assert norm["items"] == ["mean of the epoch", "largest of the epoch"]
    assert {line["of"] for one in data["charts"] for line in one["lines"]} == {"epoch"}
    assert data["runs"][0]["ends"] == []


def test_a_log_alone_is_drawn_from_its_epochs(tmp_path: Path) -> None:
    log = Log().start().epoch(1, 50, rejected=2).epoch(2, 50, norm_mean=None, norm_max=None)
    data = page_data([read_run(log.write(tmp_path))])
    (mean, most) = chart(data, "norm")["lines"]
    assert (mean["y"], most["y"]) == ([8.0, None], [30.0, None])
    assert chart(data, "rejected")["lines"][0]["y"] == [2, 0]
    assert chart(data, "loss")["items"] == ["box_loss", "cls_loss", "dfl_loss"]


def test_several_runs_show_the_sum_of_the_loss_and_the_measure(tmp_path: Path) -> None:
    data = page_data([read_run(guarded_run(tmp_path / "a")), read_run(stock_run(tmp_path / "b"))])
    assert (chart(data, "loss")["item"], chart(data, "map")["item"]) == ("sum", "mAP50-95(B)")
    assert chart(data, "lr")["items"] == ["group 0", "group 1", "group 2"]
    assert (chart(data, "norm")["item"], chart(data, "lr")["item"]) == ("norm", "group 0")


def test_the_more_runs_the_fewer_points_of_each(tmp_path: Path) -> None:
    log = Log().start()
    for step in range(1200):
        log.steps(1, step)
    run = read_run(log.write(tmp_path))
    assert len(chart(page_data([run]), "norm")["lines"][0]["x"]) >= 1000
    longest = [len(line["x"]) for line in chart(page_data([run] * 30), "norm")["lines"]]
    assert max(longest) <= FEW


def test_thinning_keeps_breaks() -> None:
    points = [(x, None if x == 500 else 1.0) for x in range(1000)]
    kept = thin(points, 100)
    assert [y for _, y in kept].count(None) == 1
    assert json.dumps(kept)


def test_the_figures_of_a_run(tmp_path: Path) -> None:
    found = {figure.name: figure.value for figure in figures(read_run(guarded_run(tmp_path)))}
    assert (found["status"], found["epochs"], found["best mAP50-95"]) == ("done", "6 of 6", "0.56")
    assert (found["rejected"], found["rollbacks"], found["optimizer steps"]) == ("2", "1", "600")
    assert found["per epoch"] == "1 min 0 s"
    assert 3 < float(found["gradient norm, median"]) < float(found["95 %"]) < float(found["largest"])
    assert float(found["final loss"]) == 2.0 + 2.0 + 1.5


def test_an_epoch_s_time_survives_a_resume(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("epoch,time\n1,10\n2,20\n3,11\n4,22\n")
    assert seconds_per_epoch(read_run(tmp_path)) == 10.5


def test_settings_are_held_against_the_defaults_without_where_the_run_is_kept(tmp_path: Path) -> None:
    run = read_run(write_args(stock_run(tmp_path), name="x", project="y", save_dir="z", new_key=3))
    rows, same = changed(run)
    assert ("lr0", "0.005", "0.01") in rows
    assert ("new_key", "3", "(not a setting of this version)") in rows
    assert not {"name", "project", "save_dir", "mosaic"} & {row[0] for row in rows}
    assert same == 4  # task, batch, imgsz and mosaic


def test_the_settings_in_which_runs_differ(tmp_path: Path) -> None:
    a = read_run(write_args(stock_run(tmp_path / "a"), lr0=0.01))
    b = read_run(write_args(stock_run(tmp_path / "b"), optimizer="AdamW", guard={"patience": 5}, preset="adamw"))
    assert differing([a, b]) == [
        ("preset", ["", "adamw"]), ("lr0", ["0.01", "0.005"]), ("optimizer", ["SGD", "AdamW"]), ("guard.patience", ["", "5"]),
    ]  # fmt: skip
