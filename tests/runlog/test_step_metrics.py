from __future__ import annotations

import math

import pytest
import torch

from tests.rig import Rig, batches
from yolo_stable.guard import Decision, GuardVerdict
from yolo_stable.runlog.step_metrics import StepMetrics
from yolo_stable.runlog.step_record import StepRecord

CPU = torch.device("cpu")


def follow(telemetry: StepMetrics, rig: Rig, count: int) -> list[StepRecord]:
    """Take guarded steps and return the records that were made."""
    made = []
    for x in batches(count):
        loss = (rig.model(x) - 1.0).square().mean()
        telemetry.add(rig.guard.backward(loss, {"mse": loss}))
        due = telemetry.before_step(rig.guard)
        decision = rig.guard.step(measure=due)
        telemetry.add(decision)
        if due and (found := telemetry.record(decision, batch=7, step=rig.guard.counts.applied, warm_up=False)):
            made.append(found[0])
    return made


def test_every_third_step_is_recorded() -> None:
    rig = Rig("SGD")
    made = follow(StepMetrics(3, 100.0, 10.0, CPU), rig, 10)
    assert [record.step for record in made] == [3, 6, 9]
    first = made[0]
    assert first.lr == (0.01,)
    assert (first.batch, first.scale) == (7, None)
    assert first.loss == {"mse": pytest.approx(first.loss["mse"])}
    assert first.clip == 1.0
    assert first.memory is not None
    assert first.memory > 2**20
    assert sorted(name for name, _ in first.layers) == ["0", "1", "4"]
    assert sum(share for _, share in first.layers) == pytest.approx(1.0)


def test_the_learning_rate_is_the_one_that_the_optimizer_got() -> None:
    """After a rollback it is a part of that in the groups, for the time of the step."""
    rig = Rig("SGD", snapshot_every=4)
    assert rig.guard.recovery is not None
    rig.guard.recovery.lr_backoff.rolled_back()
    telemetry = StepMetrics(1, 100.0, 10.0, CPU)
    used: list[float] = []
    rig.optimizer.register_step_post_hook(lambda o, *_: used.append(o.param_groups[0]["lr"]))
    made = follow(telemetry, rig, 3)
    assert [record.lr[0] for record in made] == pytest.approx(used)
    assert used[0] == pytest.approx(0.005)


def test_a_window_that_is_not_applied_is_no_step_and_the_next_one_is_recorded() -> None:
    rig = Rig("SGD")
    telemetry = StepMetrics(2, 100.0, 10.0, CPU)
    follow(telemetry, rig, 1)
    assert telemetry.before_step(rig.guard)
    bad = Decision(verdict=GuardVerdict.REJECT_WINDOW, norm=math.nan)
    telemetry.add(bad)
    assert telemetry.record(bad, batch=2, step=1, warm_up=False) is None
    assert [record.step for record in follow(telemetry, rig, 1)] == [2]


def test_the_norms_of_all_steps_are_judged_and_not_only_that_of_the_record() -> None:
    telemetry = StepMetrics(10, 100.0, 10.0, CPU)
    for norm in (20.0, 3e9, *[20.0] * 8):
        telemetry.add(Decision(verdict=GuardVerdict.CLIP, norm=norm))
    found = telemetry.record(Decision(verdict=GuardVerdict.CLIP, norm=20.0), batch=1, step=10, warm_up=False)
    assert found is not None
    record, (caution,) = found
    assert (record.norm, record.clip) == (20.0, pytest.approx(0.5))
    assert (caution.what, caution.value) == ("norm over limit", 3e9)


def test_what_was_seen_before_a_rollback_is_forgotten() -> None:
    rig = Rig("SGD")
    telemetry = StepMetrics(1, 100.0, 10.0, CPU)
    follow(telemetry, rig, 5)
    assert len(telemetry.watch._norms) == 5
    rig.guard.counts.rollbacks += 1
    follow(telemetry, rig, 2)
    assert len(telemetry.watch._norms) == 2
