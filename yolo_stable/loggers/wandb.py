"""Weights & Biases: the run that Ultralytics has started, or has joined."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

STEP = "guard_steps/step"
"""The x-axis of our numbers; W&B's own counts calls of ``log``."""
COLUMNS = ("step", "title", "text")


class WeightsAndBiases:
    """Logs into the open run.

    No call closes a row (``commit=False``): a closed one moves W&B's only step on, and what a script logs with a step of its own,
    such as the epoch, would lie behind it and be dropped. Ultralytics closes a row once an epoch, with the newest of our numbers.
    Its charts go by ``epoch``, and ours by :data:`STEP`.
    """

    name = "W&B"

    def __init__(self, library: Any) -> None:
        self._library, self._run = library, library.run
        self._rows: list[tuple[int, str, str]] = []
        self._run.define_metric(STEP, hidden=True)
        self._run.define_metric("guard_steps/*", step_metric=STEP)

    @classmethod
    def of(cls, callbacks: Any) -> WeightsAndBiases | None:
        """Return the open one; see :data:`~yolo_stable.loggers.logger.Maker`."""
        library = getattr(callbacks, "wb", None)
        return None if library is None or library.run is None else cls(library)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Put them into the open row."""
        self._run.log({**values, STEP: step}, commit=False)

    def text(self, step: int, title: str, text: str) -> None:
        """Log the table of all texts so far: a logged table cannot be changed, and the newest is shown."""
        self._rows.append((step, title, text))
        table = self._library.Table(columns=list(COLUMNS), data=[list(row) for row in self._rows])
        self._run.log({"guard/incidents": table, STEP: step}, commit=False)

    def image(self, step: int, title: str, path: Path) -> None:
        """Log it beside the earlier ones, which a slider goes through."""
        picture = self._library.Image(str(path), caption=title)
        self._run.log({"guard/incident": picture, STEP: step}, commit=False)
