from __future__ import annotations

from pathlib import Path

import pytest

from yolo_stable.runlog.results_csv import end_last_row, keep_epochs, widen

GUARD = ["guard/grad_norm", "guard/rejected"]


def test_a_file_of_stock_gets_the_columns_empty(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text("epoch,train/box_loss\n1,0.5\n2,0.4\n")
    widen(path, GUARD)
    assert path.read_text() == "epoch,train/box_loss,guard/grad_norm,guard/rejected\n1,0.5,,\n2,0.4,,\n"
    before = path.read_text()
    widen(path, GUARD)
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_there_is_left_alone(tmp_path: Path) -> None:
    widen(tmp_path / "results.csv", GUARD)
    assert not list(tmp_path.iterdir())
    (tmp_path / "results.csv").write_text("")
    widen(tmp_path / "results.csv", GUARD)
    assert (tmp_path / "results.csv").read_text() == ""


HEAD = "epoch,train/box_loss\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("1,0.5\n2,0.4\n", "1,0.5\n2,0.4\n"),
        ("1,0.5\n2,0.4\n3,0.3\n", "1,0.5\n2,0.4\n"),
        ("1,0.5\n2,0.4\n3,", "1,0.5\n2,0.4\n"),
        ("1,0.5\n2,0.4", "1,0.5\n2,0.4\n"),
        ("1,0.5\n2\nx,y\n", "1,0.5\n"),
        ("", ""),
    ],
    ids=["nothing to do", "one too many", "unfinished", "without its end", "no rows", "the header alone"],
)
def test_rows_that_will_be_written_again_go(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "results.csv"
    path.write_text(HEAD + before)
    keep_epochs(path, 2, "saved")
    assert path.read_text() == HEAD + after
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_gone_is_made_from_what_was_saved(tmp_path: Path) -> None:
    keep_epochs(tmp_path / "results.csv", 1)
    assert not list(tmp_path.iterdir())
    keep_epochs(tmp_path / "results.csv", 1, HEAD + "1,0.5\n2,0.4\n")
    assert (tmp_path / "results.csv").read_text() == HEAD + "1,0.5\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a,b\n1,2\n3,", "a,b\n1,2\n"),
        ("a,b\n1,2\n", "a,b\n1,2\n"),
        ("a,b\n", "a,b\n"),
        ("a,", None),
        ("", None),
        (None, None),
    ],
)
def test_a_row_that_a_full_disk_has_cut_off_goes(tmp_path: Path, before: str | None, after: str | None) -> None:
    path = tmp_path / "results.csv"
    if before is not None:
        path.write_text(before)
    end_last_row(path)
    assert (path.read_text() if path.exists() else None) == after


def test_a_lost_table_is_there_again_and_one_that_is_whole_is_left_alone(tmp_path: Path) -> None:
    path, whole = tmp_path / "results.csv", HEAD + "1,0.5\n2,0.4\n"
    keep_epochs(path, 2, whole)
    assert path.read_text() == whole
    before = path.stat()
    keep_epochs(path, 2, "another")
    assert (path.read_text(), path.stat().st_ino) == (whole, before.st_ino)
