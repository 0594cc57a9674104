"""TensorBoard: the ``SummaryWriter`` that Ultralytics holds in its module."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class TensorBoard:
    """Writes into the open event file; the writer has a thread and a queue of its own."""

    name = "TensorBoard"

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    @classmethod
    def of(cls, callbacks: Any) -> TensorBoard | None:
        """Return the open one; see :data:`~yolo_stable.loggers.logger.Maker`."""
        writer = getattr(callbacks, "WRITER", None)
        return None if writer is None else cls(writer)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Add each to its chart."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def text(self, step: int, title: str, text: str) -> None:
        """Add it to the page of texts, which shows Markdown: indented, it stays as it is."""
        self._writer.add_text(f"guard/{title}", textwrap.indent(text, "    "), step)

    def image(self, step: int, title: str, path: Path) -> None:
        """Add it to the page of images."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self._writer.add_image(f"guard/{title}", pixels, step, dataformats="HWC")
