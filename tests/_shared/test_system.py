from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from yolo_stable._shared import system
from yolo_stable._shared.system import memory_of_machine

MACHINE = psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("1048576\n", 2**20), ("max\n", MACHINE), (str(2**62), MACHINE), (None, MACHINE)],
    ids=["of a container", "no limit", "a limit beyond the machine", "no such file"],
)
def test_it_is_what_the_container_was_given_or_the_whole_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, expected: int
) -> None:
    path = tmp_path / "memory.max"
    if limit is not None:
        path.write_text(limit)
    monkeypatch.setattr(system, "CGROUPS", (path,))
    assert memory_of_machine() == expected
