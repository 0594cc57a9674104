"""Quiet: collects what Ultralytics logs instead of printing it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator

from ultralytics.utils import LOGGER

LEFT_OUT = re.compile(r"ignoring corrupt image/label|corrupt JPEG restored|duplicate labels removed", re.IGNORECASE)


class Said(logging.Handler):
    """Collects logged lines; a text of several lines counts as several."""

    def __init__(self) -> None:
        super().__init__(level=logging.INFO)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines += [(record.levelno, line.strip()) for line in record.getMessage().splitlines() if line.strip()]

    def about_files(self) -> list[str]:
        """Return what the scan of a data set said of files that it leaves out or repairs, each once."""
        found = [re.sub(r"^.*?WARNING\s*\W*\s*", "", line) for _, line in self.lines if LEFT_OUT.search(line)]
        return list(dict.fromkeys(found))


@contextlib.contextmanager
def quietly() -> Iterator[Said]:
    """Collect what Ultralytics logs, and drop what it prints."""
    said, handlers, level = Said(), LOGGER.handlers[:], LOGGER.level
    LOGGER.handlers[:] = [said]
    LOGGER.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield said
    finally:
        LOGGER.handlers[:] = handlers
        LOGGER.setLevel(level)
