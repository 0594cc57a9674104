from __future__ import annotations

from pathlib import Path

from yolo_stable.results_csv import widen

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
