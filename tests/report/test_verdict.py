from __future__ import annotations

from pathlib import Path

import pytest
from report_rig import Log, guarded_run, stock_run, write_args, write_results

from yolo_stable.report import RunVerdict, read_run, verdict
from yolo_stable.report.verdict import verdict_of_many


def judged(
    log: Log | None, folder: Path, maps: tuple[float, ...] = (), losses: tuple[float | str, ...] = (), epochs: int = 14
) -> RunVerdict:
    if log is not None:
        log.write(folder)
    if maps:
        write_results(folder, maps, losses=losses)
    write_args(folder, epochs=epochs)
    return verdict(read_run(folder))


RISING = tuple(round(0.05 * i, 2) for i in range(1, 14))


def test_a_quiet_run_is_good(tmp_path: Path) -> None:
    found = judged(Log().start().epoch(14, 50).end(14), tmp_path, (*RISING, 0.6))
    assert found == RunVerdict(
        "good", "Finished: 14 epochs, best mAP50-95 0.65 (epoch 13). The guard had nothing to do.", ""
    )


def test_rejections_with_their_cause_are_counted_and_the_files_as_well(tmp_path: Path) -> None:
    log = Log().start()
    for batch, file in enumerate(("a.jpg", "b.jpg", "a.jpg"), start=1):
        log.rejection(1, batch, batch, [file]).incident(1, file)
    found = judged(log.epoch(14, 50).end(14), tmp_path, (*RISING, 0.6))
    assert found.text == (
        "Finished: 14 epochs, best mAP50-95 0.65 (epoch 13). The guard rejected 3 of 1,200 batches."
        " Causes found for all: 2 files with NaN pixels."
    )
    assert (found.tone, found.next) == ("good", "Repair or remove a.jpg")


def test_rejections_without_a_cause_are_something_to_mind(tmp_path: Path) -> None:
    log = Log().start().rejection(1, 1, 1).incident(1, cause="undecided", samples=[]).rejection(1, 2, 1)
    found = judged(log.epoch(14, 50).end(14), tmp_path, (*RISING, 0.6))
    assert found.tone == "mind"
    assert found.text.endswith("The guard rejected 2 of 1,200 batches. No cause was found for 1 incident.")


def test_a_rollback_is_told_with_what_it_cost(tmp_path: Path) -> None:
    log = (
        Log()
        .start()
        .escalation(2, 40, 30)
        .incident(2, kind="roll_back", cause="weights", samples=[])
        .escalation(3, 80, 75)
    )
    found = judged(log.epoch(14, 50).end(14), tmp_path, (*RISING, 0.6))
    assert (
        "The guard rolled back 2 times (15 steps undone). Causes found for 1 of 2 incidents: ruined weights."
        in found.text
    )


def test_a_halted_run_says_why_and_what_to_do(tmp_path: Path) -> None:
    message = (
        "Training halted after 3 micro-batches: 21 rejections in a row. Look at the images. The good one is last.pt."
    )
    found = judged(Log().start().rejection(3, 1, 1).end(3, "halted", message), tmp_path, (0.1, 0.2))
    assert found.tone == "bad"
    assert found.text == (
        "Halted by the guard in epoch 3 of 14: Training halted after 3 micro-batches: 21 rejections in a row."
        " Until then best mAP50-95 0.2 (epoch 2). The guard rejected 1 of 1,200 batches."
    )
    assert found.next == "Look at the images. The good one is last.pt."


@pytest.mark.parametrize(
    ("status", "tone", "start"),
    [
        ("interrupted", "mind", "Interrupted in epoch 2"),
        ("failed", "bad", "Failed in epoch 2"),
        ("odd", "mind", "Not judged: guard.jsonl ends with the status 'odd', which is not known here."),
        ("DONE", "mind", "Not judged: guard.jsonl ends with the status 'DONE'"),
        ("", "mind", "Not judged: guard.jsonl ends with the status ''"),
    ],
)
def test_every_other_end_is_named(tmp_path: Path, status: str, tone: str, start: str) -> None:
    found = judged(Log().start().end(2, status, "ValueError: x"), tmp_path, (0.1,))
    assert found.tone == tone
    assert found.text.startswith(start)


def test_a_log_without_an_end_is_not_finished(tmp_path: Path) -> None:
    found = judged(Log().start().steps(2, 10), tmp_path)
    assert found.text == (
        "Not finished: the log ends in epoch 2 of 14, the run is going on or was killed. The guard had nothing to do."
    )
    assert found.next == "", "nothing to type where there is no checkpoint"


def test_early_stopping_is_seen(tmp_path: Path) -> None:
    assert judged(Log().start().end(9), tmp_path, RISING[:9]).text.startswith("Ended after 9 of 14 epochs, best")


def test_a_stock_run_that_went_well_is_good(tmp_path: Path) -> None:
    found = verdict(read_run(stock_run(tmp_path)))
    assert found == RunVerdict("good", "Finished: 6 epochs without a guard, best mAP50-95 0.41 (epoch 6).", "")


def test_a_stock_run_whose_loss_turned_nan_is_told(tmp_path: Path) -> None:
    found = judged(None, tmp_path, (0.1, 0.3, 0.0, 0.0), (3.0, 2.5, "nan", "nan"), epochs=4)
    assert found.tone == "bad"
    assert found.text == (
        "Finished: 4 epochs without a guard, best mAP50-95 0.3 (epoch 2). Its loss was not finite from epoch 3 on."
        " mAP50-95 collapsed after epoch 2, from 0.3 to 0."
    )
    assert "with the guard" in found.next


def test_a_map_that_is_never_above_zero_is_told(tmp_path: Path) -> None:
    found = judged(None, tmp_path, (0.0, 0.0, 0.0), epochs=3)
    assert "mAP50-95 is 0 in all 3 epochs: the network finds nothing." in found.text


def test_an_empty_run_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "results.csv").touch()
    assert verdict(read_run(tmp_path)) == RunVerdict("mind", "No epoch was finished without a guard.")


def test_several_runs_are_compared_and_the_bad_one_is_named(tmp_path: Path) -> None:
    runs = [read_run(guarded_run(tmp_path / "guarded")), read_run(stock_run(tmp_path / "stock"))]
    assert verdict_of_many(runs) == RunVerdict(
        "good", "2 runs side by side: the highest is guarded with mAP50-95 0.56 (epoch 5)."
    )
    write_results(tmp_path / "stock", (0.4, 0.0), losses=(1.0, "nan"))
    found = verdict_of_many([runs[0], read_run(tmp_path / "stock")])
    assert found.tone == "mind"
    assert found.text.endswith("Look at stock, which did not end well.")


def test_runs_on_different_data_are_no_contest(tmp_path: Path) -> None:
    stock_run(tmp_path / "a")
    write_args(stock_run(tmp_path / "b"), data="other.yaml")
    found = verdict_of_many([read_run(tmp_path / "a"), read_run(tmp_path / "b")])
    assert "on different data: mAP cannot tell which is best" in found.text


def test_a_log_of_a_schema_that_is_not_known_is_not_judged(tmp_path: Path) -> None:
    folder = Log().start().end(3).write(tmp_path)
    log = (folder / "guard.jsonl").read_text()
    (folder / "guard.jsonl").write_text(log.replace('"schema": 1', '"schema": 9'))
    assert verdict(read_run(folder)) == RunVerdict(
        "mind", "Not judged: guard.jsonl has lines of schema 9, which is not known here."
    )


@pytest.mark.parametrize("content", ["epoch;train/box_loss\n1;1,5\n", "step,loss\n1,2\n", "\x00\x01\n", "0.1,0.2\n"])
def test_a_table_that_is_not_known_is_not_judged(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.csv").write_text(content)
    found = verdict(read_run(tmp_path))
    assert found.tone == "mind"
    assert found.text.startswith(("Not judged: results.csv is an unknown table", "No epoch was finished"))


def test_epochs_that_are_counted_from_0_are_all_counted(tmp_path: Path) -> None:
    """As YOLOv5 writes them, with names filled up with spaces."""
    head = "epoch,train/box_loss,metrics/mAP_0.5,metrics/mAP_0.5:0.95"
    rows = [f"{n},0.{9 - n},0.{n + 1},0.0{n + 1}" for n in range(5)]
    lines = [",".join(f"{cell:>20}" for cell in line.split(",")) for line in (head, *rows)]
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n")
    found = verdict(read_run(tmp_path))
    assert found.text == "Finished: 5 epochs without a guard, best mAP50-95 0.05 (epoch 4, counted from 0)."


@pytest.mark.parametrize("score", [0.0, 0.25])
def test_of_equal_runs_none_is_best(tmp_path: Path, score: float) -> None:
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, (score,))
        runs.append(read_run(tmp_path / name))
    assert "cannot tell which is best" in verdict_of_many(runs).text
