"""Memory, cores and versions: what the machine has, or its container was given."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from yolo_stable._shared import system
from yolo_stable._shared.system import installed_versions, memory_of_machine, peak_of_process, usable_cores

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


def test_the_peak_is_at_least_what_the_process_holds() -> None:
    held = bytearray(32 << 20)
    assert peak_of_process() >= psutil.Process().memory_info().rss - len(held) > 0


def test_the_cores_are_those_that_the_process_may_use() -> None:
    assert 1 <= usable_cores() <= (psutil.cpu_count() or 1)


def test_versions_of_what_is_not_installed_are_left_out() -> None:
    assert installed_versions("psutil", "no-such-distribution") == {"psutil": psutil.__version__}
