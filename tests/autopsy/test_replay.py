from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from autopsy_rig import classifier, cross_entropy, tensor_case
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from yolo_stable.autopsy.replay import Deadline, OutOfTimeError, Replayer
from yolo_stable.autopsy.symptom import Symptom


def player(seen: Symptom | None = None, seconds: float | None = None, **how: Any) -> Replayer:
    return Replayer(seen or Symptom(), Deadline(seconds), **how)


def test_a_healthy_case_gives_its_numbers_and_leaves_no_trace() -> None:
    case = tensor_case()
    before = {k: v.clone() for k, v in case.model.state_dict().items()}
    drawn = torch.get_rng_state()
    outcome = player().play(case, backward=True)
    assert outcome.sick is False
    assert outcome.loss == outcome.items["loss"]
    assert outcome.norm is not None
    assert outcome.norm > 0
    assert player().play(case, backward=True) == outcome, "the dropout draws the same numbers again"
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in case.model.state_dict().items())
    assert all(p.grad is None for p in case.model.parameters())


def test_a_jump_is_only_looked_for_when_one_was_seen() -> None:
    case = tensor_case()
    case.images[0] = 1e5
    assert player().play(case).sick is False
    assert player(Symptom(reason="jumped to 5e+01 times")).play(case).signs == {"jump"}


def test_the_norm_is_that_of_the_unscaled_gradients() -> None:
    plain, scaled = player(), player(Symptom(kind="window", norm=1e30, scale=1024.0))
    norm = plain.play(tensor_case(), backward=True).norm
    assert norm is not None
    assert scaled.play(tensor_case()).norm == pytest.approx(norm, rel=1e-5)


def test_infinities_can_be_taken_for_healthy() -> None:
    def endless(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        return cross_entropy(model, batch, precision)[0] * 0 + math.inf, {"a": math.inf}

    case = tensor_case(forward=endless)
    assert player().play(case).signs == {"loss", "item a"}
    assert player(nan_only=True).play(case).sick is False


def test_what_a_network_raises_is_not_known_to_be_sick() -> None:
    def refuse(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        raise RuntimeError("out of\norder")

    one = player()
    assert one.sick(tensor_case(forward=refuse)) is None
    assert one.sick(tensor_case(forward=refuse)) is None
    assert one.errors == ["RuntimeError: out of order"]


def test_nothing_is_replayed_after_the_deadline() -> None:
    one = player(seconds=0)
    assert one.play(tensor_case()).error == "out of time"
    assert (one.replays, one.deadline.met, one.deadline.left) == (0, True, 0.0)


def test_a_replay_is_stopped_at_the_next_module() -> None:
    deadline = Deadline(3600)
    model = classifier()
    with deadline.inside():
        model(tensor_case().images)
        deadline._end = 0.0
        with pytest.raises(OutOfTimeError):
            model(tensor_case().images)
    assert not hooks._global_forward_pre_hooks
    model(tensor_case().images)
