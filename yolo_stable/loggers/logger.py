"""Logger: what a run hands to TensorBoard, W&B, MLflow, ClearML or Comet; a file here for each of them.

Each adapter is made of the module of Ultralytics' own callbacks, through which it finds what that has opened: no second run, no
login, and nothing where Ultralytics logs nothing. None of the libraries is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol


class Logger(Protocol):
    """An open run of a logger; its methods raise whatever the library raises."""

    name: str
    """As people call it."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers.

        Args:
            step: Optimizer steps applied; the same step may come twice, and after a rollback none is repeated.
            values: By name, such as ``guard_steps/grad_norm``; all finite.
        """
        ...

    def text(self, step: int, title: str, text: str) -> None:
        """Log text of one or several lines, in which commands are to be kept as they are.

        Args:
            step: Optimizer steps applied.
            title: Of letters, digits, spaces and hyphens; the same one may come again.
            text: As the terminal says it.
        """
        ...

    def image(self, step: int, title: str, path: Path) -> None:
        """Log a picture.

        Args:
            step: Optimizer steps applied.
            title: That of its text.
            path: Of a JPEG.
        """
        ...


Maker = Callable[[Any], "Logger | None"]
"""Makes a logger of the module of Ultralytics' callbacks; None: it has opened nothing."""
