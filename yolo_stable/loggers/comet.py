"""Comet: the running experiment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Comet:
    """Logs into the running experiment, which sends in the background."""

    name = "Comet"

    def __init__(self, experiment: Any) -> None:
        self._experiment = experiment

    @classmethod
    def of(cls, callbacks: Any) -> Comet | None:
        """Return the open one; see :data:`~yolo_stable.loggers.logger.Maker`."""
        library = getattr(callbacks, "comet_ml", None)
        experiment = None if library is None else library.get_running_experiment()
        return None if experiment is None else cls(experiment)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log them as metrics."""
        self._experiment.log_metrics(dict(values), step=step)

    def text(self, step: int, title: str, text: str) -> None:
        """Log it to the tab of texts."""
        self._experiment.log_text(text, step=step, metadata={"title": f"guard/{title}"})

    def image(self, step: int, title: str, path: Path) -> None:
        """Log it to the tab of graphics."""
        self._experiment.log_image(str(path), name=f"guard {title}", step=step)
