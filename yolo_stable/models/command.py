"""Command of a training: the one by which Ultralytics starts trainings as processes of their own, with the guard in them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from ultralytics.engine import trainer as engine

from .._shared.environment import variable
from ..presets.run_plan import ALERT
from .asked import Asked

NAME = "_YOLO_CLI_COMMAND"
"""Where Ultralytics has the words before ``train key=value ...``."""


@contextmanager
def guarded_command(asked: Asked) -> Iterator[None]:
    """Let the trainings that Ultralytics starts by command while this is entered be guarded, as a tuning's are.

    Args:
        asked: Settings of the guard and preset of each; nothing changes when it asks for stock.
    """
    stock = getattr(engine, NAME)
    if asked.stock:
        yield
        return
    setattr(engine, NAME, [sys.executable, "-m", "yolo_stable", "yolo", *asked.words])
    try:
        with variable(ALERT, asked.alert):
            yield
    finally:
        setattr(engine, NAME, stock)
