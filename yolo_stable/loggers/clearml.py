"""ClearML: the current task."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class ClearML:
    """Reports to the logger of the current task, which sends in the background."""

    name = "ClearML"

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    @classmethod
    def of(cls, callbacks: Any) -> ClearML | None:
        """Return the open one; see :data:`~yolo_stable.loggers.logger.Maker`."""
        tasks = getattr(callbacks, "Task", None)
        task = None if tasks is None else tasks.current_task()
        return None if task is None else cls(task.get_logger())

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Report each as a curve of the plot that its name begins with."""
        for name, value in values.items():
            plot, _, curve = name.partition("/")
            self._logger.report_scalar(plot, curve or plot, value, iteration=step)

    def text(self, step: int, title: str, text: str) -> None:
        """Report it to the task's console, and not to that of the training, which has said it."""
        self._logger.report_text(f"guard, step {step}, {title}: {text}", print_console=False)

    def image(self, step: int, title: str, path: Path) -> None:
        """Report it as a debug sample."""
        self._logger.report_image("guard", title, iteration=step, local_path=str(path))
