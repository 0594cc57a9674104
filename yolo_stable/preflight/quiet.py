"""Quiet: Ultralytics kept from talking, and what it would have said."""

from __future__ import annotations

import contextlib
import io
import logging
import re
from collections.abc import Iterator

from ultralytics.utils import LOGGER

LEFT_OUT = re.compile(r"ignoring corrupt image/label|corrupt JPEG restored|duplicate labels removed", re.IGNORECASE)


class Said(logging.Handler):
    """Lines that were logged; a text of several lines is several."""

    def __init__(self) -> None:
        super().__init__(level=logging.INFO)
        self.lines: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        self.lines += [(record.levelno, line.strip()) for line in record.getMessage().splitlines() if line.strip()]

    def about_files(self) -> list[str]:
        """Return what the scan of a data set has said of files that it leaves out or mends, each once."""
        found = [re.sub(r"^.*?WARNING\s*\W*\s*", "", line) for _, line in self.lines if LEFT_OUT.search(line)]
        return list(dict.fromkeys(found))


@contextlib.contextmanager
def quietly() -> Iterator[Said]:
    """Take what Ultralytics logs and prints for a time; progress bars are dropped."""
    said, handlers, level = Said(), LOGGER.handlers[:], LOGGER.level
    LOGGER.handlers[:] = [said]
    LOGGER.setLevel(logging.INFO)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield said
    finally:
        LOGGER.handlers[:] = handlers
        LOGGER.setLevel(level)
