"""Calls of ``yolo-stable compare`` whose runs take milliseconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from yolo_stable.comparing.axes import Axes
from yolo_stable.comparing.call import CompareCall
from yolo_stable.comparing.trial import Trial

STUB = Path(__file__).with_name("comparing_stub.py")


def stub(trial: Trial, words: list[str]) -> list[str]:
    """Return the command of a run that takes milliseconds."""
    return [sys.executable, "-S", str(STUB), *words]


def compare_call(*words: str, data: str = "data.yaml", epochs: int | None = None, **axes: Any) -> CompareCall:
    return CompareCall.parse(data, words, Axes.parse(**axes), epochs)
