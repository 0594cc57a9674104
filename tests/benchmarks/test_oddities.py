"""The benchmark of honest oddities: an honest training comes out as stock's, and one that is harmed does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.oddities import faults, total
from benchmarks.oddity_pictures import DataSet
from benchmarks.oddity_run import FALSE, compare, same
from benchmarks.oddity_stories import STORIES, Story
from yolo_stable import GuardedTrainerMixin

SHORT = Story(data=DataSet(train=8, val=4), settings={"epochs": 2})
REFERENCE = {"reference": {"step": "reference"}}


def ruined(base: type) -> type:
    """Return a trainer whose third batch has a pixel that is not a number, when it is guarded."""

    class Ruined(base):  # type: ignore[misc]
        shown = 0

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            self.shown += 1
            if self.shown == 3 and isinstance(self, GuardedTrainerMixin):
                batch["img"][0, 0, 5, 5] = float("nan")
            return batch

    return Ruined


def broken(base: type) -> type:
    """Return a trainer that cannot be made."""

    class Broken(base):  # type: ignore[misc]
        def get_model(self, *_: Any, **__: Any) -> Any:
            raise ValueError("no such network")

    return Broken


def test_an_honest_training_is_stock_s(tmp_path: Path) -> None:
    (row,) = compare(SHORT, tmp_path, REFERENCE)
    assert (row["steps"], row["epochs"], row["unequal"], row["notes"]) == (4, 2, "", [])
    assert faults(row) == ""
    assert total([row], "reference") == {
        "trainings": 1, "optimizer steps": 4, **dict.fromkeys(FALSE, 0), "not bit for bit stock's": 0, "broken": 0,
    }  # fmt: skip


def test_one_that_is_harmed_is_told_with_what_it_suffered(tmp_path: Path) -> None:
    (row,) = compare(replace(SHORT, subclass=ruined), tmp_path, REFERENCE)
    assert (row["rejected"], row["warnings"], row["steps"]) == (1, 2, 3)
    said = faults(row)
    assert said.startswith("1 rejected; 2 warnings; not stock's: weights, EMA")
    assert total([row], "reference")["rejected"] == 1


def test_a_story_that_stock_cannot_tell_is_broken(tmp_path: Path) -> None:
    (row,) = compare(replace(SHORT, subclass=broken), tmp_path, REFERENCE)
    assert faults(row) == "broken: stock: ValueError: no such network"
    assert total([row], "reference")["broken"] == 1


def test_there_are_many_of_every_kind() -> None:
    assert len(STORIES) >= 100
    assert {story.task for story in STORIES.values()} == {"detect", "segment", "pose", "obb", "classify", "rtdetr"}


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), True),
        (torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 0.0]), False),
        (torch.tensor([1.0]), torch.tensor([1.0 + 2**-23]), False),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.float64), False),
        ({"a": {"b": 1}}, {"a": {"b": 1}}, True),
        ({"a": 1}, {"a": 1, "b": 2}, False),
    ],
)
def test_equal_means_every_bit(left: Any, right: Any, expected: bool) -> None:
    assert same(left, right) is expected
