"""What autograd holds in a trainer's rejected batch, during its autopsy and afterwards: no more than in a clean batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks.rejections import AUTOPSY, CLEAN, KINDS, LATER, REJECTED, trace

pytestmark = pytest.mark.usefixtures("without_epilogue")
Arguments = Callable[..., dict[str, Any]]
LIMIT = 1.05
SHORT = {"epochs": 1, "val": False, "save": False, "mosaic": 0.0}


@pytest.fixture(scope="module")
def clean() -> dict[str, int]:
    """The peaks of clean runs, by task."""
    return {}


@pytest.mark.parametrize(
    ("kind", "task", "incidents"),
    [
        ("a loss that raised", "detect", True),
        ("a layer, forward", "detect", True),
        ("a layer, backward", "detect", True),
        ("NaN gradient", "detect", False),
        ("NaN loss", "detect", False),
        ("NaN pixel", "segment", True),
        ("NaN loss", "pose", True),
        ("NaN pixel", "obb", False),
        ("a jump of running statistics", "classify", True),
        ("NaN pixel", "rtdetr", False),
    ],
)
def test_no_more_is_held_than_in_a_clean_run(
    kind: str, task: str, incidents: bool, clean: dict[str, int], arguments: Arguments
) -> None:
    if task not in clean:
        clean[task] = trace(None, arguments(task, **SHORT, name="clean"), task).peak(CLEAN)
    guard = {"report": False} if incidents else {"report": False, "incidents": None}
    held = trace(KINDS[kind], arguments(task, **SHORT, guard=guard), task)
    peaks = {part: held.peak(part) / clean[task] for part in (REJECTED, AUTOPSY, LATER)}
    assert peaks[LATER] > 0.5, "there was a batch afterwards"
    assert incidents == (peaks[AUTOPSY] > 0)
    assert max(peaks.values()) <= LIMIT, peaks
