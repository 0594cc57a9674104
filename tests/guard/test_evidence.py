"""When the model is asked, about which older state, and what follows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch

from yolo_stable.guard.divergence import Divergence
from yolo_stable.guard.evidence import BATCHES, EARLY, EARLY_BATCHES, PROBATION, PROBATION_BATCHES, DivergenceEvidence
from yolo_stable.guard.snapshot import SnapshotRing
from yolo_stable.guard.witness import BatchMeasurement
from yolo_stable.presets.guard_settings import GuardSettings

EVERY = 16


class Run:
    """Losses by step and state: ``loss(state, step)`` is that of the data of a step under the state of another."""

    memory = None

    def __init__(self, loss: Callable[[int, int], float], norm: Callable[[int, int], float] = lambda *_: 5.0) -> None:
        self.loss, self.norm, self.step = loss, norm, 0
        config = GuardSettings.of(None).guard
        stands_in: Any = self
        self.evidence = DivergenceEvidence(stands_in, config)
        self.divergence = Divergence(4.0, 10.0, self.evidence.patience)
        self.ring = SnapshotRing(stands_in, 2, "device")
        self.asked: list[tuple[int, int]] = []
        self.alarms: list[tuple[int, str]] = []
        self.take()

    def take(self) -> None:
        live = {"model/step": torch.tensor(float(self.step))}
        self.ring.take(self.step, live)
        self.evidence.follow(self.divergence, self.step, live)

    def aside(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {}, {}

    def hindrance(self) -> str:
        return ""

    def measure(self, tensors: Any, *, norm: bool) -> BatchMeasurement:
        state = self.step if tensors is None else int(tensors["model/step"])
        if tensors is not None:
            self.asked.append((self.step, state))
        return BatchMeasurement(self.loss(state, self.step), self.norm(state, self.step))

    def go(self, steps: int) -> Run:
        """Take steps; an alarm puts the newest snapshot back, as far as the rules are concerned."""
        for _ in range(steps):
            self.step += 1
            why = self.divergence.add(self.loss(self.step, self.step), self.norm(self.step, self.step))
            if why := why or self.evidence.hear(self.divergence, self.ring, self.step):
                self.alarms.append((self.step, why))
                return self
            if self.step % EVERY == 0 and not self.evidence.delays(self.divergence):
                self.take()
        return self


def test_nobody_is_asked_while_all_is_in_line() -> None:
    run = Run(lambda state, step: 6.0 + step % 5).go(1000)
    assert run.asked == []
    assert run.alarms == []


def test_hard_data_are_asked_about_twice_and_believed() -> None:
    """Once when they begin, once when they have lasted; then they are what is usual, and snapshots go on."""
    run = Run(lambda state, step: 0.02 if step <= 200 else 4.0).go(400)
    assert run.alarms == []
    assert run.asked == [(201, 192), (200 + run.evidence.patience, 192)]
    assert run.ring.newest is not None
    assert run.ring.newest.step == 400


def test_blocks_in_turns_are_no_alarm() -> None:
    run = Run(lambda state, step: 0.02 if step % 400 < 300 else 4.0).go(4000)
    assert run.alarms == []
    assert run.asked, "the blocks ask nothing"


def test_a_tenfold_jump_of_the_model_is_an_alarm_after_patience_steps() -> None:
    run = Run(lambda state, step: 6.0 * (7.0 if state > 200 else 1.0)).go(400)
    assert run.asked[0] == (200 + EARLY, 192)
    (step, why) = run.alarms[0]
    assert step == 232
    assert why == (
        "loss 42 has been above 4 times its baseline of 6 for 32 steps;"
        f" of the last {BATCHES} batches the largest loss is 42 now and 6 under the state of step 192"
    )


def test_an_explosion_does_not_wait_so_long() -> None:
    run = Run(lambda state, step: 6.0 * (500.0 if state > 200 else 1.0)).go(400)
    assert run.alarms[0][0] == 200 + EARLY_BATCHES


def test_a_jump_amid_blocks_is_an_alarm() -> None:
    run = Run(lambda state, step: (0.5 if step % 100 < 50 else 4.0) * (60.0 if state > 1000 else 1.0)).go(1200)
    assert [1000 < step < 1100 for step, _ in run.alarms] == [True]


def test_a_slow_creep_is_measured_against_the_state_of_the_lowest_loss() -> None:
    run = Run(lambda state, step: 6.0 * 2 ** (max(0, state - 500) / 500)).go(3000)
    ((step, why),) = run.alarms
    assert 1500 < step < 1800
    assert "times its lowest of 6" in why
    assert run.asked[-1][1] < 520


def test_data_that_get_harder_slowly_are_believed() -> None:
    run = Run(lambda state, step: 6.0 * 2 ** (max(0, step - 500) / 500)).go(6000)
    assert run.alarms == []
    assert 2 <= len(run.asked) < 20


@pytest.mark.parametrize(("of_the_model", "alarms"), [(True, 1), (False, 0)])
def test_a_norm_that_jumps_alone(of_the_model: bool, alarms: int) -> None:
    run = Run(lambda *_: 6.0, lambda state, step: 500.0 if (state if of_the_model else step) > 200 else 5.0).go(400)
    assert len(run.alarms) == alarms
    assert run.asked


def test_after_a_rollback_the_state_is_compared_with_the_one_that_was_put_back() -> None:
    for worse in (1.0, 2.0):
        run = Run(lambda state, step, worse=worse: 6.0 * (worse if state > 200 else 1.0)).go(200)
        assert run.ring.newest is not None
        run.evidence.watch_after(run.ring.newest)
        run.go(50)
        if worse == 2.0:
            assert run.alarms[0][0] == 200 + PROBATION + PROBATION_BATCHES
            assert run.alarms[0][1].startswith(
                "the rollback has not helped; of the last 8 batches the largest loss is 12 now"
            )
        else:
            assert run.alarms == []
            assert run.asked == [(200 + PROBATION + 1, 192)]


def test_the_anchor_outlives_a_norm_that_was_believed() -> None:
    """The loss has begun to creep by then; an anchor from after that would have crept with it."""
    run = Run(
        lambda state, step: 6.0 * 2 ** (max(0, state - 500) / 500), lambda state, step: 500.0 if step > 700 else 5.0
    )
    run.go(800)
    assert run.alarms == []
    assert 700 + run.evidence.patience in [step for step, _ in run.asked], "the norm was asked about"
    ((step, why),) = run.go(2200).alarms
    assert 1500 < step < 1800
    assert "times its lowest of 6" in why
    assert run.asked[-1][1] < 520


@pytest.mark.parametrize(("rise", "what"), [(1.9, "gradient norm"), (2.1, "loss")])
def test_where_losses_are_not_watched_one_that_has_doubled_counts_when_norms_are_out_of_line(
    rise: float, what: str
) -> None:
    run = Run(
        lambda state, step: 6.0 * (rise if state > 200 else 1.0), lambda state, step: 100.0 if state > 200 else 5.0
    )
    stands_in: Any = run
    run.evidence = DivergenceEvidence(stands_in, dataclasses.replace(GuardSettings.of().guard, max_loss_rise=None))
    run.divergence = Divergence(None, 10.0, run.evidence.patience)
    run.take()
    run.go(400)
    ((_, why),) = run.alarms
    assert f"batches the largest {what} is" in why
