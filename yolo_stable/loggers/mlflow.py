"""MLflow: the active run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FOLDER = "guard"
"""Of our artifacts."""


class MLflow:
    """Logs into the active run: numbers as metrics, texts and pictures as artifacts.

    Numbers are sent by MLflow's own thread, since they come often and its server may be far away; ending the run waits for them.
    """

    name = "MLflow"

    def __init__(self, library: Any, run: Any) -> None:
        self._library, self._id = library, run.info.run_id
        self._texts = 0

    @classmethod
    def of(cls, callbacks: Any) -> MLflow | None:
        """Return the open one; see :data:`~yolo_stable.loggers.logger.Maker`."""
        library = getattr(callbacks, "mlflow", None)
        run = None if library is None else library.active_run()
        return None if run is None else cls(library, run)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Queue them as metrics."""
        self._library.log_metrics(dict(values), step=step, synchronous=False, run_id=self._id)

    def text(self, step: int, title: str, text: str) -> None:
        """Write a numbered file, as one that is there would be replaced."""
        self._texts += 1
        self._library.log_text(text, f"{FOLDER}/{self._texts:04d}-{_slug(title)}-step{step}.txt", run_id=self._id)

    def image(self, step: int, title: str, path: Path) -> None:
        """Copy the file into a folder for each step, since all are called the same."""
        folder = f"{FOLDER}/{self._texts:04d}-{_slug(title)}-step{step}"
        self._library.log_artifact(str(path), artifact_path=folder, run_id=self._id)


def _slug(title: str) -> str:
    """Return a title as part of a file's name.

    Examples:
        >>> _slug("roll back")
        'roll-back'
    """
    return re.sub(r"\W+", "-", title).strip("-") or "text"
