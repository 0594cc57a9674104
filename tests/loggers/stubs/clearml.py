"""Stands for clearml 2.1: what we call has the signatures of its own."""

from __future__ import annotations

import logging
from typing import Any

from recording import Recording, record

__version__ = "2.1.12"


class Logger(Recording):
    library = "clearml"

    def report_scalar(self, title: str, series: str, value: float, iteration: int) -> None:
        record("clearml.scalar", title=title, series=series, value=value, iteration=iteration)

    def report_text(self, msg: str, level: int = logging.INFO, print_console: bool = True) -> None:
        record("clearml.text", msg=msg, print_console=print_console)

    def report_image(
        self, title: str, series: str, iteration: int | None = None, local_path: str | None = None
    ) -> None:
        record("clearml.image", title=title, series=series, iteration=iteration, path=local_path)


class Task(Recording):
    library = "clearml.task"
    current: Task | None = None

    @classmethod
    def current_task(cls) -> Task | None:
        return cls.current

    @classmethod
    def init(cls, **given: Any) -> Task:
        assert cls.current is None, "there is a task already"
        record("clearml.init")
        cls.current = cls()
        return cls.current

    def get_logger(self) -> Logger:
        return Logger()
