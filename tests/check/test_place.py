"""A built-in data set is made for the task that is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from check.planted import clean

from yolo_stable.check import place


@pytest.mark.parametrize(("task", "made"), [(None, "detect"), ("segment", "segment")])
def test_a_set_by_name_is_made_for_its_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str | None, made: str
) -> None:
    asked: list[tuple[str, str]] = []

    def make(name: str, *, task: str) -> str:
        asked.append((name, task))
        return str(clean(tmp_path).root / "data.yaml")

    monkeypatch.setattr(place, "make", make)
    layout = place.read_layout("shapes", task)
    assert asked == [("shapes", made)]
    assert layout.names == {0: "a", 1: "b"}
