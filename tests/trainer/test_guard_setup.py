"""The guard that a trainer gets: of which parts, whom it tells, and for which trainers there is none."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from calls import Calls
from torch import nn
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.models.yolo.world import WorldTrainer
from ultralytics.models.yolo.yoloe import YOLOESegTrainer
from ultralytics.utils import DEFAULT_CFG

from yolo_stable.errors import InvalidCallError, UnhealthyStartError
from yolo_stable.guard import Decision, GuardConfig, GuardVerdict, StepGuard
from yolo_stable.trainer import guard_setup
from yolo_stable.trainer.guard_setup import (
    as_given,
    guard_of,
    refuse_a_model_of_another_task,
    refuse_a_step_that_would_be_lost,
)


class Bare:
    """The services of a trainer that is a stub, with a model of three numbers."""

    def __init__(self, calls: Calls, **config: Any) -> None:
        self.calls = calls
        self.model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.trainer: Any = SimpleNamespace(
            model=self.model,
            optimizer=optimizer,
            ema=None,
            scheduler=torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
            plan=SimpleNamespace(guard=GuardConfig(**config)),
        )
        self.incidents: Any = SimpleNamespace(**calls.all_to("on_reject", "on_escalation"))
        self.window: Any = SimpleNamespace(loss_again=calls.to("loss_again"))
        self.services: Any = SimpleNamespace(view=self.trainer, incidents=self.incidents, window=self.window)

    def guard(self, scaler: Any = None) -> StepGuard:
        return guard_of(self.services, scaler, self.calls.to("lower_precision"))


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestGuard:
    def test_it_is_made_of_the_trainers_parts(self, bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
        given: dict[str, Any] = {}
        made = object()

        def guard(*args: Any, **kwargs: Any) -> Any:
            given.update(kwargs, parts=args)
            return made

        monkeypatch.setattr(guard_setup, "StepGuard", guard)
        monkeypatch.setattr(guard_setup, "schedules_of", lambda trainer: ("schedules of", trainer))
        bare.trainer.ema, scaler, lower = object(), object(), lambda: None
        assert guard_of(bare.services, scaler, lower) is made
        assert given.pop("parts") == (bare.model, bare.trainer.optimizer)
        assert given.pop("tell").__name__ == "warning"
        assert given == {
            "scaler": scaler,
            "ema": bare.trainer.ema,
            "schedules": ("schedules of", bare.trainer),
            "switch_precision": lower,
            "on_reject": bare.incidents.on_reject,
            "on_escalation": bare.incidents.on_escalation,
            "again": bare.window.loss_again,
            "config": bare.trainer.plan.guard,
        }

    def test_a_rejection_goes_to_the_incidents(self, bare: Bare, calls: Calls) -> None:
        guard = bare.guard()
        loss = bare.model(torch.ones(1, 2)).sum()
        decision = guard.backward(loss * math.nan, {})
        assert decision.verdict is GuardVerdict.REJECT_MICRO_BATCH
        ((name, told),) = calls
        assert (name, type(told), told.reason) == ("on_reject", Decision, "loss nan")

    @pytest.mark.parametrize(("rank", "told"), [(-1, ["It is odd."]), (0, ["It is odd."]), (1, [])])
    def test_the_first_rank_tells_what_all_have_found(
        self, bare: Bare, said: list[str], rank: int, told: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        given: dict[str, Any] = {}
        monkeypatch.setattr(guard_setup, "RANK", rank)
        monkeypatch.setattr(guard_setup, "StepGuard", lambda *args, **kwargs: given.update(kwargs))
        bare.guard()
        given["tell"]("It is odd.")
        assert said == told

    def test_weights_that_are_not_finite_are_refused_before(self, bare: Bare) -> None:
        with torch.no_grad():
            bare.model.weight[0, 1] = math.inf
        bare.trainer.model = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
        nn.Module.__init__(bare.trainer.model)
        bare.trainer.model.module = bare.model
        with pytest.raises(UnhealthyStartError, match=r"not finite before the first step: weight\."):
            bare.guard()


class Mixin:
    def optimizer_step(self) -> None:
        """As that of the guarded mixin."""


class Stock:
    __module__ = "ultralytics.engine.trainer"

    def optimizer_step(self) -> None:
        """As that of Ultralytics' own trainer."""


class Own(Stock):
    def optimizer_step(self) -> None:
        """Of somebody's own."""


class Plain(Stock):
    """Without a step of its own."""


class TestAStepThatWouldBeLost:
    def test_behind_the_mixin_it_is_refused_and_told_where_to_put_it(self) -> None:
        with pytest.raises(InvalidCallError) as refused:
            refuse_a_step_that_would_be_lost(type("Mine", (Mixin, Own), {}), Mixin)
        assert str(refused.value) == (
            "Own.optimizer_step would never be called: the guard takes the step. Put what it does into a subclass in front of"
            " Mixin that calls super().optimizer_step(), or into an optimizer hook."
        )

    def test_in_front_of_it_or_none_at_all_is_welcome(self) -> None:
        refuse_a_step_that_would_be_lost(type("Mine", (Mixin, Plain), {}), Mixin)
        refuse_a_step_that_would_be_lost(type("Mine", (Mixin, Stock), {"optimizer_step": None}), Mixin)
        refuse_a_step_that_would_be_lost(
            type("Mine", (type("Front", (), {"optimizer_step": None}), Mixin, Stock), {}), Mixin
        )


class Mask(SegmentationTrainer):
    """With the network of its base."""


class OwnNetwork(SegmentationTrainer):
    def get_model(self, *args: Any, **kwargs: Any) -> Any:
        """Return somebody's own network."""


class TestAModelOfAnotherTask:
    @pytest.mark.parametrize("kind", [SegmentationTrainer, Mask])
    def test_it_is_refused_with_both_tasks(self, kind: type) -> None:
        with pytest.raises(InvalidCallError) as refused:
            refuse_a_model_of_another_task(kind, {"task": "pose", "model": "yolo11n-pose.yaml"})
        assert str(refused.value) == (
            f"{kind.__name__} trains models for segment, but model=yolo11n-pose.yaml is one for pose. Pass"
            " trainer=StableTrainer, which picks by the model."
        )

    @pytest.mark.parametrize(
        ("kind", "task"),
        [
            (Mask, "segment"),
            (Mask, None),
            (Mask, "a task of their own"),
            (OwnNetwork, "pose"),
            (RTDETRTrainer, "detect"),
            (WorldTrainer, "detect"),
            (YOLOESegTrainer, "segment"),
            (Plain, "pose"),
        ],
    )
    def test_all_else_is_welcome(self, kind: type, task: str | None) -> None:
        refuse_a_model_of_another_task(kind, {"task": task})


def test_a_trainer_is_called_with_the_names_that_ultralytics_uses() -> None:
    assert as_given(DEFAULT_CFG, overrides={}, extra=1) == {"overrides": {}, "extra": 1}
    assert as_given({"lr0": 0.1}, overrides={}) == {"cfg": {"lr0": 0.1}, "overrides": {}}
