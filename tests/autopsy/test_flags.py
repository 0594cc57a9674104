"""The switches of torch are recorded, set for a replay, and put back."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.autopsy.flags import as_recorded, flags


def test_recorded_switches_are_set_and_put_back() -> None:
    before = flags()
    other = {**before, "threads": before["threads"] + 1, "matmul_precision": "high", "deterministic": True}
    with as_recorded(other) as missing:
        assert flags() == other
        assert missing == []
    assert flags() == before


def test_they_are_put_back_after_an_error() -> None:
    before = flags()
    seen = []

    def replay() -> None:
        with as_recorded({"threads": before["threads"] + 2}):
            seen.append(torch.get_num_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        replay()
    assert seen == [before["threads"] + 2]
    assert flags() == before


@pytest.mark.parametrize("hostile", [{"threads": "many"}, {"threads": True}, {"threads": None}, {"eval": "1"}])
def test_what_is_not_a_switch_or_of_another_type_is_left_alone(hostile: dict[str, object]) -> None:
    before = flags()
    with as_recorded(hostile) as missing:
        assert flags() == before
        assert missing == []


def test_absurd_numbers_of_threads_are_bounded_and_refused_values_are_told() -> None:
    with as_recorded({"threads": -5, "matmul_precision": "exact"}) as missing:
        assert torch.get_num_threads() == 1
    assert len(missing) == 2
    assert missing[1].startswith("matmul_precision=exact cannot be set here: it stays highest")


def test_another_instruction_set_is_told() -> None:
    with as_recorded({"cpu": "AVX1024"}) as missing:
        assert missing == [f"recorded with AVX1024 instructions, this processor has {flags()['cpu']}"]
