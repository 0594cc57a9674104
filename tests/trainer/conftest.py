"""What the tests of a trainer's services share: what was called, and what was said."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from calls import Calls
from ultralytics.utils import LOGGER


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Return the lines that are logged, as they were written; an empty one ends the line of the progress bar."""
    lines: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        lines.append(record.getMessage())
        return True

    LOGGER.addFilter(keep)  # a handler would see what Ultralytics' own has made of a warning
    yield lines
    LOGGER.removeFilter(keep)


@pytest.fixture
def calls() -> Calls:
    return Calls()
