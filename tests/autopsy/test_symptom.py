from __future__ import annotations

import math

import pytest

from yolo_stable.autopsy.symptom import Symptom, agree, same_bits
from yolo_stable.guard.decision import judge_jump

NAN = math.nan


@pytest.mark.parametrize(
    ("seen", "signs", "backward"),
    [
        pytest.param(Symptom(loss=NAN, items={"a": NAN, "b": 1.0}), {"loss", "item a"}, False, id="loss"),
        pytest.param(Symptom(loss=1.0, culprits=("bn.running_var",)), {"buffers"}, False, id="buffers"),
        pytest.param(Symptom(reason="running statistics of BatchNorm not finite"), {"buffers"}, False, id="in words"),
        pytest.param(
            Symptom(reason="a running statistic of BatchNorm jumped to 5e+13 times"), {"jump"}, False, id="jump"
        ),
        pytest.param(Symptom(kind="window", norm=NAN), {"gradients"}, True, id="gradients"),
        pytest.param(Symptom(kind="window"), {"gradients"}, True, id="window, nothing known"),
        pytest.param(Symptom(kind="window", norm=1e16), {"norm"}, True, id="absurd norm"),
        pytest.param(Symptom(kind="state"), set(), False, id="state"),
    ],
)
def test_what_was_seen_is_put_into_signs(seen: Symptom, signs: set[str], backward: bool) -> None:
    assert seen.signs == signs
    assert seen.backward is backward


def test_limits_lie_halfway_to_what_was_seen() -> None:
    assert Symptom(kind="window", norm=1e16).max_norm == 1e8
    assert Symptom(kind="window", norm=math.inf).max_norm == math.inf
    assert Symptom(reason=judge_jump(1e12, 10.0, in_a_row=0)[1]).max_jump == 1e6
    assert Symptom(reason=judge_jump(1e12, 10.0, in_a_row=0)[1]).signs == {"jump"}
    assert Symptom(reason="jumped to 12 times").max_jump == 10.0
    assert Symptom(loss=NAN).max_jump == math.inf


def test_a_replay_agrees_when_it_is_sick_in_the_same_way() -> None:
    assert agree(frozenset({"loss", "item a"}), frozenset({"loss", "item a", "buffers"}))
    assert not agree(frozenset({"loss", "item a"}), frozenset({"loss"}))
    assert agree(frozenset(), frozenset({"norm"}))
    assert not agree(frozenset(), frozenset())


def test_bits_are_the_same_when_all_that_was_recorded_is() -> None:
    seen = Symptom(loss=NAN, items={"a": 1.5}, digests={"buffers": "x"})
    assert same_bits(seen, NAN, {"a": 1.5, "b": 2.0}, {"buffers": "x", "gradients": "y"})
    assert not same_bits(seen, NAN, {"a": 1.5}, {"buffers": "z"})
    assert not same_bits(seen, NAN, {"a": math.nextafter(1.5, 2)}, {})
    assert not same_bits(seen, math.inf, {"a": 1.5}, {})
    assert not same_bits(seen, NAN, {}, {})
    assert not same_bits(Symptom(), 1.0, {}, {})
    window = Symptom(kind="window", norm=NAN, digests={"gradients": "x"})
    assert same_bits(window, 1.0, {}, {"gradients": "x"})
    assert not same_bits(window, 1.0, {}, {"gradients": "y"})
