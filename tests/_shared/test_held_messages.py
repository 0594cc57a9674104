from __future__ import annotations

import logging

import pytest

from yolo_stable._shared.held_messages import held


def test_what_is_said_meanwhile_comes_before_what_is_said_next(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("held")
    logger.setLevel(logging.INFO)
    with held("held"):
        logger.info("made a file")
        logger.info("and another")
    assert caplog.messages == []
    logger.info("training")
    logger.info("goes on")
    assert caplog.messages == ["made a file", "and another", "training", "goes on"]
    assert logger.filters == []


def test_where_nothing_was_said_nothing_stays() -> None:
    with pytest.raises(ZeroDivisionError), held("held"):
        raise ZeroDivisionError
    assert logging.getLogger("held").filters == []
