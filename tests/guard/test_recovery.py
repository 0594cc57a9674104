"""Going back: what is lost, what is kept, and that it always ends."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equality import assert_same
from rig import Rig, batches
from torch import Tensor, nn

from yolo_stable.errors import InvalidCallError, TrainingHaltedError
from yolo_stable.guard import Escalation, EscalationLevel, GuardVerdict, StepGuard
from yolo_stable.guard.escalation import most_micro_batches
from yolo_stable.guard.recovery import TRIES, Recovery
from yolo_stable.guard.snapshot import Snapshot

NAN, INF = math.nan, math.inf
EVERY = 5


def recovery_of(rig: Rig) -> Recovery:
    assert rig.guard.recovery is not None
    return rig.guard.recovery


def set_one(rig: Rig, name: str, value: float) -> None:
    """Overwrite one number of the state, and assert that it took."""
    with torch.no_grad():
        tensor = rig.state.live()[name]
        tensor.view(-1)[0] = value
        assert not (torch.isfinite(tensor).all() and tensor.abs().max() < 1e8)


def levels(rig: Rig) -> list[str]:
    return [escalation.level.value for escalation in rig.escalations]


# ---- nothing is wrong -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scaler"])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
def test_without_a_fault_there_is_no_trace_of_snapshots(optimizer: str, scaled: bool) -> None:
    ends = []
    for settings in ({}, {"snapshot_every": 3, "max_loss_rise": 4.0, "max_norm_rise": 100.0}):
        rig = Rig(optimizer, scaled=scaled, **settings)
        for x in batches(20):
            assert rig.step(x)
        ends.append(rig.everything())
        assert rig.escalations == []
    assert_same(ends[0], ends[1])


def test_without_snapshots_nothing_goes_back() -> None:
    rig = Rig(max_consecutive=2)
    assert rig.guard.recovery is None
    for x in batches(3):
        rig.step(x)
    rig.guard.settle()
    assert rig.guard.inspect()
    set_one(rig, "model/0.weight", NAN)
    assert rig.guard.inspect()  # nobody looks
    for x in batches(2):
        rig.step(x)
    with pytest.raises(TrainingHaltedError, match="3 rejections in a row"):
        rig.step(batches(1)[0])
    assert not rig.healthy()
    assert rig.escalations == []


def test_one_bad_batch_costs_the_batch_and_nothing_more() -> None:
    def copies(rig: Rig) -> dict[int, dict[str, Any]]:
        return {s.step: {name: t.clone() for name, t in s.tensors.items()} for s in recovery_of(rig).ring._ring}

    ends = []
    for bad in (True, False):
        rig = Rig("AdamW", scaled=True, snapshot_every=3, max_loss_rise=4.0)
        for i, x in enumerate(batches(12)):
            if bad and i == 7:
                before = copies(rig)
                assert not rig.step(x * NAN)
                assert_same(copies(rig), before)
            torch.manual_seed(i)  # a batch that is drawn takes its numbers
            assert rig.step(x)
        assert rig.guard.counts.rejected_micro_batches == bad
        assert rig.escalations == []
        assert recovery_of(rig).lr_backoff.factor == 1.0
        ends.append((rig.everything(), copies(rig)))
    assert_same(ends[0], ends[1])


# ---- a number of the state is ruined ----------------------------------------------------------------------------------------

PLACES = {
    "weight": "model/0.weight",
    "running variance": "model/1.running_var",
    "momentum": "optimizer/0/{}",
    "second moment": "optimizer/0/exp_avg_sq",
    "average": "ema/0.weight",
    "its variance": "ema/1.running_var",
}


@pytest.mark.parametrize("value", [NAN, INF, 1e30], ids=str)
@pytest.mark.parametrize("when", ["0", "1", "before", "after", "within"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_ruined_number_costs_few_steps_and_training_ends_healthy(
    optimizer: str, place: str, when: str, value: float
) -> None:
    key = "momentum_buffer" if optimizer == "SGD" else "exp_avg"
    name = PLACES[place].format(key)
    at = {"0": 0, "1": 1, "before": 2 * EVERY - 1, "after": 2 * EVERY, "within": 7}[when]
    if (place == "second moment" and optimizer == "SGD") or ("moment" in place and at == 0):
        at, name = at + 1, PLACES["momentum"].format(key)
    rig = Rig(optimizer, snapshot_every=EVERY)
    data = batches(40)
    for i in range(20):
        if i == at and when != "within":
            set_one(rig, name, value)
        rig.guard.backward((rig.model(data[2 * i]) - 1.0).square().mean())
        if i == at and when == "within":
            set_one(rig, name, value)
        rig.guard.backward((rig.model(data[2 * i + 1]) - 1.0).square().mean())
        rig.finish()
    assert rig.healthy()
    assert rig.guard.inspect()
    assert all(
        escalation.level in (EscalationLevel.ROLL_BACK, EscalationLevel.REPAIR) for escalation in rig.escalations
    )
    assert len(rig.escalations) <= 2, levels(rig)
    assert all(0 <= escalation.lost <= EVERY for escalation in rig.escalations), rig.escalations
    if "variance" not in place:  # those of the model the next forward pass shows, and a rejected batch brings them back
        assert rig.escalations
    if place == "average":
        assert levels(rig)[0] == "repair"
    assert rig.guard.counts.applied >= 18


def test_going_back_is_as_if_the_steps_had_never_been() -> None:
    """The twin stands still while the other one takes steps that are undone; then both get the same batches."""
    data = batches(20)
    faulty, twin = (Rig("AdamW", "ultralytics", scaled=True, snapshot_every=4) for _ in range(2))
    for rig in (faulty, twin):
        torch.manual_seed(0)
        for x in data[:8]:
            rig.step(x)
    assert_same(faulty.everything(), twin.everything())
    for x in data[8:11]:
        faulty.step(x)
        twin.schedule.step()  # follows the loop
    set_one(faulty, "model/4.bias", NAN)
    assert not faulty.step(data[11])
    assert levels(faulty) == ["roll_back"]
    assert faulty.escalations[0].lost == 3
    assert_same(faulty.weights(), twin.weights())
    for rig in (faulty, twin):
        torch.manual_seed(1)
        for x in data[12:]:
            rig.step(x)
    assert_same(faulty.everything(), twin.everything())


def test_the_generators_go_on_so_that_the_same_numbers_do_not_lead_to_the_same_fault() -> None:
    """The loop draws its batches itself; the seventh draw is fatal. Drawn again after each rollback, it would be for ever."""
    rig = Rig(snapshot_every=4)
    torch.manual_seed(5)
    draws = [torch.randn(5, 4) for _ in range(2)]
    assert not torch.equal(*draws)
    seen: set[float] = set()
    for i in range(12):
        x = torch.randn(5, 4)
        assert x[0, 0].item() not in seen
        seen.add(x[0, 0].item())
        rig.step(x)
        if i == 6:
            set_one(rig, "model/0.weight", NAN)
    assert levels(rig) == ["roll_back"]


def test_what_is_lost_is_counted_once() -> None:
    rig = Rig(snapshot_every=10)
    data = iter(batches(100))
    for steps in (9, 1, 0, 4):
        for _ in range(steps):
            assert rig.step(next(data))
        set_one(rig, "model/0.weight", NAN)
        assert not rig.step(next(data))
    # Two steps after the first one a snapshot would have been due, and one after each of the others.
    assert [escalation.lost for escalation in rig.escalations] == [9, 1, 0, 1]
    assert [(escalation.step, escalation.to_step) for escalation in rig.escalations] == [
        (9, 0),
        (10, 0),
        (10, 0),
        (14, 13),
    ]
    assert recovery_of(rig).trained == 3


def test_a_snapshot_that_leads_astray_again_makes_way_for_an_older_one() -> None:
    rig = Rig(snapshot_every=5)
    data = iter(batches(100))
    for _ in range(12):
        rig.step(next(data))
    for _ in range(TRIES + 1):
        set_one(rig, "model/0.weight", NAN)
        rig.step(next(data))
    assert [escalation.to_step for escalation in rig.escalations] == [10] * TRIES + [5]
    assert [escalation.lost for escalation in rig.escalations] == [2, 0, 5]
    assert [escalation.lr_factor for escalation in rig.escalations] == [1.0, 1.0, 1.0]


# ---- a fault that never goes away -------------------------------------------------------------------------------------------


def halt_of(work: Callable[[], object]) -> str:
    """Return why a piece of work was halted, or nothing."""
    try:
        work()
    except TrainingHaltedError as error:
        return str(error)
    return ""


def halted_after(rig: Rig, step: Callable[[int], None], most: int) -> int:
    """Drive a run until it halts and return how many micro-batches that took."""
    for i in range(most + 1):
        if message := halt_of(lambda: step(i)):  # noqa: B023 - called at once
            assert "rollbacks did not help" in message
            assert rig.escalations[-1].level is EscalationLevel.HALT
            assert rig.healthy()
            kept = [s.tensors for s in recovery_of(rig).ring._ring]
            now = rig.model.state_dict()
            assert any(all(torch.equal(now[n], tensors[f"model/{n}"]) for n in now) for tensors in kept)
            return rig.guard.counts.micro_batches
    pytest.fail(f"not halted after {most} windows: {levels(rig)}")


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("fault", ["batches", "gradients", "weight", "momentum", "large momentum", "variance"])
def test_a_fault_that_never_goes_away_halts_in_time_with_healthy_weights(fault: str, seed: int) -> None:
    dice = random.Random(f"{fault} {seed}")
    accumulate, precisions = dice.randint(1, 3), dice.randint(1, 3)
    names = iter(["bfloat16", "float32"][: precisions - 1])
    settings: dict[str, Any] = {
        "snapshot_every": dice.randint(1, 9),
        "snapshots": dice.randint(2, 4),
        "max_consecutive": dice.randint(1, 9),
        "max_rollbacks": dice.randint(1, 5),
        "ramp_steps": dice.randint(1, 50),
        "patience": dice.randint(1, 9),
    }
    rig = Rig(dice.choice(["SGD", "AdamW"]), **settings)
    recovery_of(rig)._switch_precision = lambda: next(names, None)
    data = batches(50, seed)
    for x in data[: dice.randint(1, 20)]:
        rig.step(x)
    before = rig.guard.counts.micro_batches
    key = "momentum_buffer" if type(rig.optimizer).__name__ == "SGD" else "exp_avg"
    place = {
        "weight": ("model/0.weight", NAN),
        "momentum": (f"optimizer/0/{key}", NAN),
        "large momentum": ("optimizer/0/exp_avg_sq", 1e30) if key == "exp_avg" else (f"optimizer/0/{key}", 1e25),
        "variance": ("model/1.running_var", 1e30),
    }

    def window(i: int) -> None:
        for m in range(accumulate):
            if fault in place and place[fault][0] in rig.state.live():
                set_one(rig, *place[fault])
            x = data[(i * accumulate + m) % 50]
            rig.guard.backward((rig.model(x * NAN if fault == "batches" else x) - 1.0).square().mean())
            gradient = rig.model.get_parameter("0.weight").grad
            if fault == "gradients" and gradient is not None:
                gradient[0, 0] = INF
        rig.finish()

    most = most_micro_batches(rig.guard.config, precisions, accumulate)
    used = halted_after(rig, window, most) - before
    assert used <= most
    assert levels(rig).count("lower_precision") == precisions - 1
    assert levels(rig).count("halt") == 1


def test_the_first_steps_of_all_can_be_the_fault() -> None:
    rig = Rig("AdamW", snapshot_every=4, max_rollbacks=3)
    before = copy.deepcopy(rig.model.state_dict())

    def window(_: int) -> None:
        set_one(rig, "model/0.weight", NAN)
        rig.step(batches(1)[0])

    assert halted_after(rig, window, 10) == 4
    assert_same(rig.model.state_dict(), before)
    assert not rig.optimizer.state


def test_a_fault_that_comes_again_only_after_a_long_calm_is_forgiven_each_time() -> None:
    rig = Rig(snapshot_every=5, max_rollbacks=1, ramp_steps=2)
    for i, x in enumerate(batches(200)):
        if i % 40 == 39:
            set_one(rig, "model/0.weight", NAN)
        rig.step(x)
    assert levels(rig) == ["roll_back"] * 5
    assert all(escalation.lost <= 5 for escalation in rig.escalations)


def test_rejections_past_the_total_halt_with_a_snapshot() -> None:
    rig = Rig(snapshot_every=2, max_total=3)
    for x in batches(3):
        assert rig.step(x)
        assert not rig.step(x * NAN)
    with pytest.raises(TrainingHaltedError, match=r"4 rejections in all, more than guard\.max_total=3"):
        rig.step(batches(1)[0] * NAN)
    assert levels(rig) == ["halt"]
    assert rig.healthy()


# ---- the averaged model -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average", ["torch", "ultralytics"])
def test_an_average_that_is_ruined_again_and_again_follows_the_model_and_harms_nothing(average: str) -> None:
    faulty, twin = (Rig("SGD", average, snapshot_every=EVERY) for _ in range(2))
    name = "ema/module.0.weight" if average == "torch" else "ema/0.weight"
    ends = []
    for rig in (faulty, twin):
        torch.manual_seed(0)
        for x in batches(8 * EVERY):
            assert rig.step(x)
            if rig is faulty:
                set_one(rig, name, NAN)
        ends.append({key: value for key, value in rig.everything().items() if key != "ema"})
    assert_same(ends[0], ends[1])
    assert set(levels(faulty)) == {"repair"}
    assert [escalation.step for escalation in faulty.escalations] == [EVERY * i for i in range(1, 9)]
    assert faulty.escalations[0].reason.startswith(f"{name} nan")
    assert faulty.escalations[1].reason.endswith("it restarts from the model")
    assert recovery_of(faulty).ring.newest is not None
    assert recovery_of(faulty).ring.newest.step == 8 * EVERY, "copies are taken as ever"  # type: ignore[union-attr]
    assert faulty.guard.inspect()
    assert faulty.healthy()
    for key, tensor in faulty.model.state_dict().items():
        own = faulty.averaged.state_dict()[f"module.{key}" if average == "torch" else key]
        assert torch.equal(own, tensor)


# ---- divergence -------------------------------------------------------------------------------------------------------------


def fit(lr_factor: float, since: int, until: int = 10**9, **settings: Any) -> tuple[float, list[Escalation], bool]:
    """Fit a line to known numbers; return the loss at the end, what was escalated, and whether it halted."""
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    escalations: list[Escalation] = []
    rules = {"snapshot_every": 8, "max_loss_rise": 4.0, "max_norm_rise": 100.0, "patience": 8, "ramp_steps": 20}
    rows = torch.arange(32)
    again = lambda: (model(x[rows]) - y[rows]).square().mean()  # noqa: E731
    guard = StepGuard(model, optimizer, on_escalation=escalations.append, again=again, **{**rules, **settings})
    generator = torch.Generator().manual_seed(1)
    truth, halted = torch.randn(8, 1, generator=generator), False
    x = torch.randn(256, 8, generator=generator)
    y = x @ truth + 0.5 * torch.randn(256, 1, generator=generator)
    for i in range(400):
        optimizer.param_groups[0]["lr"] = 0.05 * (lr_factor if since <= i < until else 1.0)
        rows = torch.randint(256, (32,), generator=generator)
        guard.backward(again())
        halted = bool(halt_of(guard.step)) or bool(halt_of(guard.settle))
        if halted:
            break
    assert guard.inspect()
    return (model(x) - y).square().mean().item(), escalations, halted


def test_a_burst_of_far_too_large_steps_is_undone_and_training_ends_where_it_would_have() -> None:
    clean, escalations, halted = fit(1.0, 0)
    assert (escalations, halted) == ([], False)
    ruined, escalations, halted = fit(1000.0, 100, 112, max_loss_rise=None, max_norm_rise=None)
    assert escalations == []
    assert not halted
    saved, escalations, halted = fit(1000.0, 100, 112)
    assert escalations
    assert {escalation.level for escalation in escalations} == {EscalationLevel.ROLL_BACK}
    assert not halted
    assert "above 4 times its baseline" in escalations[0].reason
    assert escalations[0].to_step is not None
    assert escalations[0].to_step <= 100
    assert saved < 1.1 * clean < ruined


def test_steps_a_thousand_times_too_large_for_ever_are_braked_until_training_goes_on() -> None:
    clean, _, _ = fit(1.0, 0)
    loss, escalations, halted = fit(1000.0, 100)
    assert not halted
    assert [escalation.level for escalation in escalations] == [EscalationLevel.ROLL_BACK] * 7
    assert escalations[-1].step < 200
    assert escalations[-1].lr_factor < 1 / 64
    assert loss < 2 * clean


def test_steps_that_no_brake_makes_small_enough_end_with_a_halt_and_a_healthy_state() -> None:
    clean, _, _ = fit(1.0, 0)
    loss, escalations, halted = fit(1e6, 100)
    assert halted
    assert [escalation.level for escalation in escalations] == [EscalationLevel.ROLL_BACK] * 8 + [EscalationLevel.HALT]
    assert loss < 1.1 * clean


def driven(**settings: Any) -> tuple[Rig, Callable[..., bool]]:
    """Return a run, and what takes a step on a batch whose targets are given; the guard can ask for its loss again."""
    batch: list[Any] = []
    rig = Rig("SGD", again=lambda: (rig.model(batch[0]) - batch[1]).square().mean(), **settings)

    def step(x: Tensor, target: float = 1.0) -> bool:
        batch[:] = x, target
        rig.guard.backward((rig.model(x) - target).square().mean())
        return rig.finish()

    return rig, step


def lead_astray(rig: Rig) -> None:
    """Set finite weights with which the loss is high on any data."""
    with torch.no_grad():
        rig.model.get_parameter("4.bias").fill_(100.0)


def test_a_diverging_window_is_not_applied_and_says_why() -> None:
    rig, step = driven(snapshot_every=2, max_loss_rise=2.0, patience=3)
    data = batches(40)
    for x in data[:18]:
        step(x)
    before = rig.everything()
    for x in data[18:20]:
        step(x)
    lead_astray(rig)
    for i, x in enumerate(data[20:23]):
        assert step(x) or i == 2
    last = rig.guard.last
    assert last is not None
    assert last.verdict is GuardVerdict.ROLL_BACK
    assert not last
    assert last.reason == rig.escalations[0].reason
    assert "above 2 times its baseline" in last.reason
    assert "of the last 3 batches the largest loss is" in last.reason
    assert last.reason.endswith("under the state of step 18")
    assert last.norm is not None
    assert [snapshot.step for snapshot in recovery_of(rig).ring._ring] == [18], "of what came later nothing is left"
    assert_same(rig.weights()["model"], before["model"])
    assert not recovery_of(rig).divergence.suspicious


def test_harder_data_are_no_divergence_and_snapshots_go_on() -> None:
    """A hundred times the loss, because of the data alone: nothing is put back, and nothing else than without a guard happens."""
    ends = []
    for settings in ({}, {"snapshot_every": 2, "max_loss_rise": 2.0, "max_norm_rise": 2.0, "patience": 3}):
        rig, step = driven(**settings)
        for i, x in enumerate(batches(200)):
            assert step(x, target=100.0 if i % 50 >= 25 else 1.0)
        assert rig.escalations == []
        ends.append(rig.everything())
    assert_same(ends[0], ends[1])
    assert recovery_of(rig).divergence.loss.count > 150, "what is hard is in line by now"
    assert [snapshot.step for snapshot in recovery_of(rig).ring._ring] == [198, 200]


def test_without_anybody_to_ask_a_suspicion_is_no_alarm_and_holds_snapshots_up_only_until_it_is_one() -> None:
    rig = Rig("SGD", snapshot_every=2, max_loss_rise=2.0, patience=3)
    for x in batches(70):
        rig.step(x)
    lead_astray(rig)
    kept = []
    for x in batches(6):
        rig.step(x)
        newest = recovery_of(rig).ring.newest
        assert newest is not None
        kept.append(newest.step)
    assert rig.escalations == []
    assert recovery_of(rig).divergence.suspicion
    assert kept[0] == 70
    assert kept[-1] > 70


def test_who_cannot_be_asked_is_told_once_and_decides_nothing() -> None:
    rig, step = driven(snapshot_every=2, max_loss_rise=2.0, patience=3)
    for x in batches(20):
        step(x)
    witness = recovery_of(rig).evidence._witness
    assert witness is not None
    asked: list[int] = []

    def refuse() -> Tensor:
        asked.append(1)
        raise torch.OutOfMemoryError("out of memory")

    witness._again = refuse
    lead_astray(rig)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for x in batches(10):
            step(x)
    assert "cannot tell whether training diverges" in str(told[0].message)
    assert "out of memory. Training goes on." in str(told[0].message)
    assert len(told) == len(asked) == 1
    assert rig.escalations == []


def test_after_a_rollback_what_is_still_worse_is_put_back_again() -> None:
    """A few times the loss of what was put back is no divergence here; after a rollback it shows that this has not helped."""
    rig, step = driven(snapshot_every=2, max_loss_rise=32.0, patience=8)
    data = batches(60)
    for x in data[:40]:
        step(x)
    lead_astray(rig)
    for x in data[40:48]:
        step(x)
    assert levels(rig) == ["roll_back"]
    with torch.no_grad():
        loss = (rig.model(data[0]) - 1.0).square().mean().item()
        rig.model.get_parameter("4.bias").add_(2.5 * math.sqrt(loss))
    rig.optimizer.param_groups[0]["lr"] = 1e-9
    rig.schedule.base_lrs = [1e-9]
    for x in data * 2:
        step(x)
        if len(rig.escalations) > 1:
            break
    assert rig.escalations[1].reason.startswith(
        "the rollback has not helped; of the last 8 batches the largest loss is"
    )


def test_a_loss_that_explodes_again_after_each_rollback_halts_in_time() -> None:
    rig, step = driven(snapshot_every=4, max_loss_rise=2.0, patience=6, max_rollbacks=4, max_consecutive=2)
    for x in batches(12):
        step(x)
    before = rig.guard.counts.micro_batches

    def window(i: int) -> None:
        lead_astray(rig)
        step(batches(1, i)[0])

    most = most_micro_batches(rig.guard.config, 1)
    assert halted_after(rig, window, most) - before == 30 <= most == 36
    assert levels(rig) == ["roll_back"] * 4 + ["halt"]


# ---- precision --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("may", [True, False])
def test_the_precision_is_lowered_when_the_budget_is_used_up(may: bool) -> None:
    names = iter(["bfloat16", "float32"])
    asked: list[int] = []
    rig = Rig(snapshot_every=4, max_rollbacks=2, max_consecutive=1, lower_precision=may)

    def lower() -> str | None:
        asked.append(len(rig.escalations))
        return next(names, None)

    recovery_of(rig)._switch_precision = lower

    def window(i: int) -> None:
        rig.step(batches(1, i)[0] * NAN)

    halted_after(rig, window, 100)
    if may:
        assert [escalation.level.value for escalation in rig.escalations] == [
            *("roll_back", "roll_back", "lower_precision"),
            *("roll_back", "lower_precision", "roll_back", "halt"),
        ]
        assert [escalation.precision for escalation in rig.escalations] == ["", "", "bfloat16", "", "float32", "", ""]
        assert asked == [2, 4, 6]
    else:
        assert levels(rig) == ["roll_back", "roll_back", "halt"]
        assert asked == []


# ---- the calls --------------------------------------------------------------------------------------------------------------


def test_settle_keeps_a_copy_when_it_is_time() -> None:
    rig = Rig(snapshot_every=3)
    ring = recovery_of(rig).ring
    seen = []
    for x in batches(10):
        rig.step(x)
        rig.guard.settle()  # once more does nothing
        seen.append([snapshot.step for snapshot in ring._ring])
    assert seen == [[0], [0], [0, 3], [0, 3], [0, 3], [3, 6], [3, 6], [3, 6], [6, 9], [6, 9]]


@pytest.mark.parametrize(("name", "level"), [("model/0.weight", "roll_back"), ("ema/0.weight", "repair")])
def test_inspect_puts_right_what_it_finds(name: str, level: str) -> None:
    rig = Rig(snapshot_every=100)
    for x in batches(3):
        rig.step(x)
    assert rig.guard.inspect()
    assert rig.escalations == []
    set_one(rig, name, NAN)
    assert rig.guard.inspect()
    assert levels(rig) == [level]
    assert rig.healthy()
    assert rig.guard.inspect()
    assert len(rig.escalations) == 1


def test_inspect_looks_once_when_all_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(snapshot_every=100)
    looks: list[int] = []
    look = recovery_of(rig).audit.inspect
    monkeypatch.setattr(recovery_of(rig).audit, "inspect", lambda live: looks.append(1) or look(live))
    assert rig.guard.inspect()
    assert len(looks) == 1


def test_resync_takes_what_was_loaded_and_forgets_the_copies() -> None:
    rig = Rig(snapshot_every=2)
    for x in batches(5):
        rig.step(x)
    with torch.no_grad():
        for parameter in rig.model.parameters():
            parameter.fill_(0.25)
    rig.guard.resync()
    ring = recovery_of(rig).ring
    assert [snapshot.step for snapshot in ring._ring] == [5]
    set_one(rig, "model/0.weight", NAN)
    rig.step(batches(1)[0])
    assert all(bool((p == 0.25).all()) for p in rig.model.parameters())


def test_layers_that_were_added_are_kept_after_resync() -> None:
    rig = Rig(snapshot_every=2)
    rig.step(batches(1)[0])
    rig.model.append(nn.BatchNorm1d(1))
    assert "model/5.weight" not in rig.state.live()
    rig.guard.resync()
    assert "model/5.weight" in rig.state.live()
    set_one(rig, "model/5.weight", NAN)
    assert rig.guard.inspect()
    assert rig.healthy()


def test_a_window_that_is_under_way_is_dropped_with_a_rollback() -> None:
    rig = Rig(snapshot_every=100)
    for x in batches(2):
        rig.step(x)
    rig.guard.backward((rig.model(batches(1)[0]) - 1.0).square().mean())
    set_one(rig, "model/0.weight", NAN)
    assert rig.guard.inspect()
    assert all(p.grad is None for p in rig.model.parameters())
    assert rig.guard.step().verdict is GuardVerdict.EMPTY


def test_the_brake_slows_the_steps_down_and_the_schedule_does_not_see_it() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    guard = StepGuard(model, optimizer, snapshot_every=1, ramp_steps=4)
    assert guard.recovery is not None
    guard.recovery.lr_backoff.rolled_back()
    positions = []
    for _ in range(5):
        guard.backward(model(torch.ones(1, 1)).sum())  # the gradient is 1
        guard.step()
        guard.settle()
        positions.append(-model.weight.item())
        assert optimizer.param_groups[0]["lr"] == 1.0
    assert positions == [0.5, 1.125, 1.875, 2.75, 3.75]


def test_brake_and_levels_come_back_with_the_state() -> None:
    rig, fresh = (Rig(snapshot_every=3, max_loss_rise=4.0) for _ in range(2))
    for x in batches(5):
        rig.step(x)
    set_one(rig, "model/0.weight", NAN)
    rig.step(batches(1)[0])
    recovery_of(rig).lr_backoff.rolled_back()
    state = rig.guard.state_dict()
    counts = fresh.guard.counts
    fresh.guard.load_state_dict(copy.deepcopy(state))
    assert fresh.guard.state_dict() == state
    assert fresh.guard.counts is counts is recovery_of(fresh).counts
    assert recovery_of(fresh).lr_backoff.factor == 0.5
    assert recovery_of(fresh).lr_backoff.rollbacks == 1
    recovery_of(fresh).lr_backoff.rolled_back()
    assert rig.guard.state_dict() == state, "nothing is shared"


@pytest.mark.parametrize(("most", "used"), [(1, 0), (2, 0), (3, 2)])
def test_a_run_that_halted_begins_with_its_whole_budget_and_another_one_goes_on_with_what_is_left(
    most: int, used: int
) -> None:
    rig, fresh = Rig(snapshot_every=3), Rig(snapshot_every=3, max_rollbacks=most)
    for _ in range(2):
        recovery_of(rig).lr_backoff.rolled_back()
    fresh.guard.load_state_dict(copy.deepcopy(rig.guard.state_dict()))
    assert (recovery_of(fresh).lr_backoff.rollbacks, recovery_of(fresh).lr_backoff.factor) == (used, 0.25)


def test_a_state_that_was_loaded_is_not_replaced_by_the_best_one_of_before() -> None:
    ends = []
    for loaded in (False, True):
        rig = Rig(snapshot_every=2)
        for x in batches(3):
            rig.step(x)
        recovery = recovery_of(rig)
        recovery.keep_best()
        if loaded:
            rig.guard.resync()
        ends.append((recovery.roll_back_to_best("the fitness collapsed"), levels(rig)))
    assert ends == [(True, ["roll_back"]), (False, [])]


def test_a_state_that_was_loaded_is_held_against_nothing_of_before() -> None:
    rig = Rig(snapshot_every=2, max_loss_rise=4.0, again=lambda: torch.tensor(1.0))
    for x in batches(3):
        rig.step(x)
    recovery = recovery_of(rig)
    assert recovery.ring.newest is not None
    recovery.evidence.watch_after(recovery.ring.newest)
    recovery.evidence._anchor.follow(1.0, 2, rig.state.live())
    recovery.wish = "the training state is not healthy"
    assert recovery.evidence.doubts(recovery.divergence)
    rig.guard.resync()
    assert recovery.evidence._anchor.snapshot is None
    assert not recovery.evidence.doubts(recovery.divergence)
    assert recovery.wish == ""


@pytest.mark.parametrize("part", ["brake", "divergence"])
@pytest.mark.parametrize("wrong", [None, {}, {"x": 1}, 5, "text"], ids=str)
def test_a_damaged_state_is_refused_and_nothing_is_loaded(part: str, wrong: Any) -> None:
    rig = Rig(snapshot_every=3, max_loss_rise=4.0)
    for x in batches(4):
        rig.step(x)
    before = rig.guard.state_dict()
    other = copy.deepcopy(before)
    other["counts"]["applied"] += 7
    other["brake"]["factor"] = 0.25
    with pytest.raises(InvalidCallError, match=f"^This is not the state of a StepGuard: {part}="):
        rig.guard.load_state_dict({**other, part: wrong})
    assert rig.guard.state_dict() == before


def test_a_state_from_before_there_were_snapshots_is_taken() -> None:
    rig = Rig(snapshot_every=3)
    rig.guard.load_state_dict({"counts": Rig().guard.counts.to_dict()})
    assert recovery_of(rig).lr_backoff.factor == 1.0


def test_an_optimizer_that_was_exchanged_survives_a_rollback() -> None:
    rig = Rig("SGD", "none", snapshot_every=100)
    for x in batches(3):
        rig.step(x)
    rig.guard.optimizer = rig.optimizer = torch.optim.AdamW(rig.model.parameters(), lr=0.01)
    rig.step(batches(1)[0])
    set_one(rig, "model/0.weight", NAN)
    for x in batches(3):
        rig.step(x)
    assert levels(rig) == ["roll_back"]
    assert rig.healthy()
    assert type(rig.optimizer.state[rig.model.get_parameter("0.weight")]["exp_avg"]) is Tensor


def test_memory_that_ran_out_lets_go_of_the_snapshot_that_was_put_back_last(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(snapshot_every=EVERY)
    recovery = recovery_of(rig)

    def go_back(times: int) -> None:
        for _ in range(times):
            set_one(rig, "model/0.weight", NAN)
            assert not rig.step(batches(1)[0])

    for x in batches(12):
        rig.step(x)
    go_back(TRIES)
    newest = recovery.ring.newest
    assert newest is not None
    assert recovery._target is newest
    recovery.out_of_memory()
    assert recovery._target is newest, "on the host nothing has moved"
    assert recovery._tries == TRIES
    moved = Snapshot(rig.state.live(), on_host=True)
    moved.fill(newest.step, rig.state.live(), rig.state)
    monkeypatch.setattr(recovery.ring, "move_to_host", lambda: setattr(recovery.ring, "_ring", [moved]))
    recovery.out_of_memory()
    assert recovery._target is moved
    recovery.keep_best()
    assert recovery.roll_back_to_best("the fitness collapsed")
    assert recovery._target is recovery.milestone.snapshot
    recovery.out_of_memory()
    assert recovery._target is None


def test_the_shortest_way_to_the_next_snapshot_on_any_rank_is_that_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rank whose state was ruined has kept no snapshot when the others did, and theirs follow each other more slowly."""
    steps = {}
    for theirs in (1, 99):
        rig = Rig(snapshot_every=EVERY)
        recovery = recovery_of(rig)
        for x in batches(4 * EVERY):
            rig.step(x)
        asked: list[int] = []
        monkeypatch.setattr(
            recovery.ranks, "lowest", lambda own, theirs=theirs, asked=asked: asked.append(own) or min(own, theirs)
        )
        set_one(rig, "model/0.weight", NAN)
        assert not rig.step(batches(1)[0])
        assert asked[-1] == EVERY
        for x in batches(3):
            rig.step(x)
        assert recovery.ring.newest is not None
        steps[theirs] = recovery.ring.newest.step
    assert steps == {1: 4 * EVERY + 3, 99: 4 * EVERY}


def test_statistics_that_a_bad_batch_writes_are_put_right_also_when_they_are_not_shadowed() -> None:
    rig = Rig(snapshot_every=4, batchnorm=False)
    for i, x in enumerate(batches(12)):
        rig.step(x * NAN if i == 6 else x)
    assert levels(rig) == ["roll_back"]
    assert "running_mean" in rig.escalations[0].reason
    assert rig.escalations[0].lost == 2
    assert rig.healthy()


def test_the_setting_and_the_action_of_lowering_the_precision_have_names_of_their_own() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for value in (True, False):
        guard = StepGuard(model, optimizer, snapshot_every=1, lower_precision=value)
        assert guard.config.lower_precision is value
        assert guard.recovery is not None
        assert guard.recovery._switch_precision is None
    guard = StepGuard(model, optimizer, snapshot_every=1, switch_precision=lambda: None)
    assert guard.config.lower_precision
    with pytest.raises(InvalidCallError, match=r"guard\.lower_precision=.* It must be True or False"):
        StepGuard(model, optimizer, lower_precision=lambda: None)
    wrong: Any = True
    with pytest.raises(InvalidCallError, match=r"switch_precision=True is not allowed.* the setting lower_precision"):
        StepGuard(model, optimizer, switch_precision=wrong)


def test_after_a_rollback_a_rejected_batch_goes_back_to_the_statistics_that_were_put_back() -> None:
    rig = Rig(snapshot_every=5)
    kept: dict[str, Any] = {}
    for i, x in enumerate(batches(8)):
        rig.step(x)
        kept = rig.weights() if i == 4 else kept
    set_one(rig, "model/0.weight", NAN)
    assert not rig.step(batches(1)[0])
    assert levels(rig) == ["roll_back"]
    assert_same(rig.weights(), kept)
    assert not rig.step(batches(1)[0] * NAN)
    assert_same(rig.weights(), kept)
    assert levels(rig) == ["roll_back"]


def test_going_back_ends_a_streak_also_when_the_copy_was_taken_within_it() -> None:
    rig = Rig(snapshot_every=100, max_loss_rise=2.0, patience=5)
    for x in batches(6):
        rig.step(x)
    rig.guard.backward((rig.model(batches(1)[0]) - 100.0).square().mean())
    rig.finish()
    recovery = recovery_of(rig)
    assert recovery.divergence.suspicious
    recovery._take(rig.state.live())  # as with several ranks
    assert recovery.ring.newest is not None
    assert not recovery.ring.newest.trusted
    set_one(rig, "model/0.weight", NAN)
    assert rig.guard.inspect()
    assert rig.escalations[0].to_step == 7
    assert not recovery.divergence.suspicious


def test_a_wish_to_go_back_ends_with_a_new_beginning() -> None:
    rig = Rig(snapshot_every=2)
    for x in batches(4):
        rig.step(x)
    assert rig.guard.recovery is not None
    rig.guard.recovery.wish = "the loss is out of line"
    rig.guard.recovery.begin()
    rig.step(batches(1)[0] * NAN)
    assert levels(rig) == []
