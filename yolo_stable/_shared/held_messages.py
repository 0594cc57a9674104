"""Held messages: what a library logs while it is imported waits until something else is logged.

A call that is refused before that is one line, without a word about the library's settings in front of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Holding(logging.Filter):
    """Holds records back, and lets them go before the next one once ``importing`` is False."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.logger, self.importing = logger, True
        self.records: list[logging.LogRecord] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Hold a record, or let all go."""
        if self.importing:
            self.records.append(record)
            return False
        self.logger.removeFilter(self)
        for held in self.records:
            self.logger.handle(held)
        return True


@contextmanager
def held(name: str) -> Iterator[None]:
    """Hold back what a logger says while this is entered, until it says something afterwards.

    Args:
        name: Of the logger.
    """
    logger = logging.getLogger(name)
    holding = _Holding(logger)
    logger.addFilter(holding)
    try:
        yield
    finally:
        holding.importing = False
        if not holding.records:
            logger.removeFilter(holding)
