from __future__ import annotations

import math
from pathlib import Path

import pytest
from report_rig import write_results

from yolo_stable.runlog.results_csv import read_results


def test_rows_are_read_by_epoch(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, (0.1, 0.3)) / "results.csv")
    assert results.epochs == [1, 2]
    assert results.column("metrics/mAP50-95(B)") == [(1, 0.1), (2, 0.3)]
    assert results.notices == []


def test_numbers_that_are_not_finite_stay_numbers(tmp_path: Path) -> None:
    results = read_results(write_results(tmp_path, (0.1, 0.0), losses=("nan", "inf")) / "results.csv")
    assert [math.isfinite(value) for _, value in results.column("train/box_loss")] == [False, False]


def test_of_an_epoch_that_was_done_again_the_later_row_counts(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("  epoch,  time,a\n1,10,0.1\n2,20,0.2\n3,30,0.3\n2,21,0.5\n")
    results = read_results(path)
    assert results.column("a") == [(1, 0.1), (2, 0.5), (3, 0.3)]


def test_damaged_rows_are_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes(b"epoch,time,a\n1,10,0.1\nnot,a,row\n2,20\n\n3,30,word\n4,\x00\xff,0.4\n")
    results = read_results(path)
    assert results.column("a") == [(1, 0.1), (4, 0.4)]
    assert results.notices == ["results.csv: 2 rows are damaged and left out."]


@pytest.mark.parametrize("content", ["", "epoch,time,a\n"])
def test_a_file_without_rows_is_said(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(content)
    results = read_results(path)
    assert (results.epochs, results.measure) == ([], "")
    assert results.notices == ["results.csv has no row: no epoch was finished."]


@pytest.mark.parametrize(
    ("columns", "measure"),
    [
        ("metrics/mAP50(B),metrics/mAP50-95(B)", "metrics/mAP50-95(B)"),
        ("metrics/mAP50-95(B),metrics/mAP50(M),metrics/mAP50-95(M)", "metrics/mAP50-95(M)"),
        ("metrics/accuracy_top1,metrics/accuracy_top5", "metrics/accuracy_top1"),
        ("metrics/mAP_0.5,metrics/mAP_0.5:0.95", "metrics/mAP_0.5:0.95"),
        ("metrics/mAP_0.5:0.95(B),metrics/mAP_0.5(M),metrics/mAP_0.5:0.95(M)", "metrics/mAP_0.5:0.95(M)"),
        ("train/loss,val/loss", ""),
    ],
)
def test_the_measure_is_that_of_the_task(tmp_path: Path, columns: str, measure: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(f"epoch,{columns}\n1,{','.join('1' for _ in columns.split(','))}\n")
    assert read_results(path).measure == measure


def test_two_runs_in_one_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("epoch,a\n1,1\n2,2\nepoch,a\n1,3\n")
    results = read_results(path)
    assert results.column("a") == [(1, 3.0), (2, 2.0)]
    assert "its header 2 times" in results.notices[0]


def test_a_row_that_is_being_written_has_no_last_cell(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("epoch,a,b\n1,1,0.25\n2,2,0.2")
    results = read_results(path)
    assert results.rows[-1] == {"epoch": 2.0, "a": 2.0}


def test_a_mark_of_the_encoding_and_another_place_of_the_epoch(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_bytes("\ufefftime,epoch,a\r\n5,1,0.5\r\n".encode())
    assert read_results(path).column("a") == [(1, 0.5)]
