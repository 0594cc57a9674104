from __future__ import annotations

import os

import pytest

from yolo_stable._shared.environment import variable

NAME = "YOLO_STABLE_OF_A_TEST"


@pytest.mark.parametrize("before", [None, "old"])
def test_a_variable_is_put_back_also_after_an_error(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(NAME, raising=False)
    if before is not None:
        monkeypatch.setenv(NAME, before)
    seen: list[str | None] = []

    def failing() -> None:
        with variable(NAME, "new"):
            seen.append(os.environ.get(NAME))
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        failing()
    assert seen == ["new"]
    assert os.environ.get(NAME) == before
    with variable(NAME, None):
        assert os.environ.get(NAME) == before
