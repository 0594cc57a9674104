from __future__ import annotations

from pathlib import Path

import pytest
from report_rig import EVIL, Log, guarded_run, stock_run, write_args, write_results

from yolo_stable.errors import InvalidCallError
from yolo_stable.report import read_run


def test_a_guarded_run_is_read_from_all_its_files(tmp_path: Path) -> None:
    run = read_run(guarded_run(tmp_path / "train"))
    assert (run.name, run.status, run.guarded, run.preset) == ("train", "done", True, "stable")
    assert (run.epochs_done, run.epochs_planned, run.best) == (6, 6, (0.56, 5))
    assert run.guard == {"max_norm": 10.0, "patience": 32}
    assert "guard" not in run.settings
    assert run.environment["torch"] == "2.14.1"
    assert [found.kind for found in run.incidents] == ["micro_batch", "micro_batch", "roll_back"]
    assert run.incidents[0].folder == "0001"
    assert run.incidents[0].guilty == [f"images/{EVIL}"]
    assert run.notices == []


def test_a_stock_run_is_read_from_its_results_alone(tmp_path: Path) -> None:
    run = read_run(stock_run(tmp_path))
    assert (run.status, run.guarded, run.best) == ("stock", False, (0.41, 6))
    assert run.notices == [
        "There is no guard.jsonl: this run was trained without the guard, and is shown from results.csv."
    ]


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    run = read_run(Log().start().steps(1, 10).write(tmp_path))
    assert run.status == "unfinished"
    assert run.guard == {"max_norm": 10.0}, "the log has the settings of the guard as well"
    assert [notice.split(":")[0] for notice in run.notices] == ["There is no results.csv", "There is no args.yaml"]


@pytest.mark.parametrize("content", ["[1, 2", "- 1\n- 2\n", "\x00", "a: !!python/object:os.system x", "", "{" * 5000])
def test_settings_that_cannot_be_read_are_said(tmp_path: Path, content: str) -> None:
    write_results(tmp_path, (0.1,))
    (tmp_path / "args.yaml").write_text(content)
    run = read_run(tmp_path)
    assert run.settings == {}
    assert any(notice.startswith("args.yaml cannot be read: ") for notice in run.notices)


def test_settings_that_multiply_when_they_are_written_out_stay_small(tmp_path: Path) -> None:
    write_results(tmp_path, (0.1,))
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "args.yaml").write_text("\n".join(layers) + "\nguard: *a11\npreset: *a11\n")
    run = read_run(tmp_path)
    assert len(run.preset) <= 200


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCallError, match=r"report: there is no folder .*nowhere\. Give the folder of a run"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(InvalidCallError, match=r"It is a file: give its folder, "):
        read_run(write_results(tmp_path, (0.1,)) / "results.csv")


def test_a_folder_without_a_run_is_refused_and_the_runs_in_it_are_named(tmp_path: Path) -> None:
    write_args(tmp_path)
    with pytest.raises(InvalidCallError, match=r"is no folder of a run: it has neither results\.csv nor guard\.jsonl"):
        read_run(tmp_path)
    stock_run(tmp_path / "train2")
    with pytest.raises(InvalidCallError, match=r"Runs are in it: train2\."):
        read_run(tmp_path)


def test_the_folder_of_an_incident_is_never_looked_for_outside_of_the_run(tmp_path: Path) -> None:
    log = Log().start()
    for folder in ("../../../etc", "/etc/passwd", "0001/../../x", "..", 7, ["0001"], "/other/machine/incidents/0002"):
        log.rejection(1, 1, 1).incident(1, folder=folder)
    run = read_run(log.write(tmp_path))
    assert [found.folder for found in run.incidents] == ["", "", "", "", "", "", "0002"]
