"""A pretended backend that loses NaN, tried out anew as a new device is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from yolo_stable.chaos import LyingBackend
from yolo_stable.guard import reductions


@contextmanager
def lying(*args: Any, **kwargs: Any) -> Iterator[LyingBackend]:
    """Compute on a `LyingBackend` for a time, which is tried out anew, as a new device is."""
    reductions.forget()
    try:
        with LyingBackend(*args, **kwargs) as backend:
            yield backend
    finally:
        reductions.forget()
