"""The guard's columns beside those of Ultralytics, and a ``results.csv`` that stays readable."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
from calls import Calls

from yolo_stable.runlog.epoch_metrics import EpochMetrics
from yolo_stable.trainer.progress import labelled, write_row

COLUMNS = {"guard/grad_norm": 0.0, "guard/grad_norm_max": 0.0, "guard/clip_share": 0.0, "guard/rejected": 0}


class TestLabels:
    def test_training_has_the_columns_of_the_epoch_behind_its_loss(self, calls: Calls) -> None:
        stock = calls.to("stock", {"train/box_loss": 1.0})
        shown = {"box_loss": 1.0, "grad_norm": 3.0, "rejected": 2}
        got = labelled(stock, shown, "train", EpochMetrics())
        assert list(got.items()) == [("train/box_loss", 1.0), *COLUMNS.items()]
        assert calls == [("stock", {"box_loss": 1.0}, "train")], "what is for the progress bar is no loss"

    @pytest.mark.parametrize(("items", "prefix"), [({"box_loss": 1.0}, "val"), (None, "train"), (None, "val")])
    def test_validation_and_the_names_alone_are_stocks(self, calls: Calls, items: Any, prefix: str) -> None:
        answer = object()
        assert labelled(calls.to("stock", answer), items, prefix, EpochMetrics()) is answer
        assert calls == [("stock", items, prefix)]


class TestRow:
    def test_the_guards_columns_come_last(self, calls: Calls, tmp_path: Path) -> None:
        metrics = {"guard/rejected": 1, "train/box_loss": 2.0, "guard/grad_norm": 3.0, "metrics/mAP50": 0.5}
        write_row(calls.to("stock"), metrics, tmp_path / "results.csv", 1)
        ((_, row),) = calls
        assert list(row.items()) == [
            ("train/box_loss", 2.0),
            ("metrics/mAP50", 0.5),
            ("guard/rejected", 1),
            ("guard/grad_norm", 3.0),
        ]

    def test_a_file_of_stock_gets_them_and_its_last_row_is_ended_before(self, tmp_path: Path) -> None:
        csv = tmp_path / "results.csv"
        csv.write_text("epoch,loss\n1,2.0\n2,")
        seen = []
        write_row(lambda row: seen.append(csv.read_text()), {"loss": 1.0, "guard/rejected": 0}, csv, 2)
        assert seen == ["epoch,loss,guard/rejected\n1,2.0,\n"]

    def test_a_full_disk_is_told_and_training_goes_on(self, calls: Calls, said: list[str], tmp_path: Path) -> None:
        full = calls.to("stock", OSError(errno.ENOSPC, "No space left on device"))
        write_row(full, {}, tmp_path / "results.csv", 3)
        assert said == [
            f"{tmp_path / 'results.csv'} could not be written: No space left on device. Training goes on; the row of epoch 3"
            " is lost."
        ]

    def test_another_error_is_not_swallowed(self, calls: Calls, tmp_path: Path) -> None:
        with pytest.raises(KeyError):
            write_row(calls.to("stock", KeyError("loss")), {}, tmp_path / "results.csv", 3)
