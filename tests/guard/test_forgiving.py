"""Faults of the catalogue again and again: what comes seldom costs steps and no learning; what never goes away ends."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.utils.torch_utils import ModelEMA

from yolo_stable.chaos import PASSING, Fault
from yolo_stable.chaos.armed import Armed
from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import Escalation, EscalationLevel, StepGuard
from yolo_stable.guard.escalation import most_micro_batches
from yolo_stable.presets.guard_settings import GuardSettings

CLASSES, EVERY = 4, 16


class Toy:
    """As much of a trainer as a fault needs: a small classifier on images of 8 pixels, with the settings of the trainers."""

    def __init__(self, optimizer: str, seed: int = 0, **settings: Any) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
            *(nn.Conv2d(8, CLASSES, 1), nn.Flatten()),
        )
        rule = {"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW}[optimizer]
        more = {"momentum": 0.9} if optimizer == "SGD" else {}
        self.optimizer = rule(self.model.parameters(), lr=0.02, **more)
        self.ema = ModelEMA(self.model, tau=50)
        self.escalations: list[Escalation] = []
        self.factors: list[float] = []
        self.loss: Any = None
        self.loss_items: Any = None
        self._fault = ""
        config = GuardSettings.of({"ramp_steps": 50, "step": "reference", **settings}).guard
        told = {"ema": self.ema, "on_escalation": self.escalations.append}
        self.guard = StepGuard(self.model, self.optimizer, config=config, **told)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        beyond = bool((batch["cls"] >= CLASSES).any())
        self._fault = "a class out of range" if beyond else ""
        return {**batch, "cls": batch["cls"].clamp(max=CLASSES - 1)}

    def optimizer_step(self) -> None:
        if self.guard.step():
            self.ema.update(self.model)
        self.guard.settle()

    def run(self, batches: Iterator[dict[str, Any]]) -> str:
        """Train; return why it was halted and what to do, or nothing."""
        try:
            for batch in batches:
                self.one(self.preprocess_batch(batch))
        except TrainingHaltedError as error:
            return f"{error}\n{error.next}"
        return ""

    def one(self, batch: dict[str, Any]) -> None:
        assert self.guard.recovery is not None
        self.factors.append(self.guard.recovery.lr_backoff.factor)
        loss = nn.functional.cross_entropy(self.model(batch["img"]), batch["cls"])
        self.loss_items = {"cls_loss": loss.detach()}
        self.loss = loss
        self.guard.backward(self.loss, self.loss_items, fault=self._fault)
        self.optimizer_step()

    def accuracy(self) -> float:
        batch = next(drawn(1, seed=99, size=256))
        with torch.no_grad():
            found = self.ema.ema.eval()(batch["img"]).argmax(1)
        return (found == batch["cls"]).float().mean().item()

    def healthy(self) -> bool:
        return self.guard.inspect() and all(bool(v.isfinite().all()) for v in self.guard.state.live().values())

    def mean_factor(self) -> float:
        return sum(self.factors) / len(self.factors)


def drawn(count: int, seed: int = 7, size: int = 8) -> Iterator[dict[str, Any]]:
    """Draw images whose class is the brightest quarter."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        images = torch.rand(size, 3, 8, 8, generator=generator)
        classes = torch.randint(CLASSES, (size,), generator=generator)
        for image, c in zip(images, classes.tolist(), strict=True):
            image[:, 4 * (c // 2) : 4 * (c // 2) + 4, 4 * (c % 2) : 4 * (c % 2) + 4] += 0.5
        yield {"img": images, "cls": classes}


def faulty(faults: list[Fault], **settings: Any) -> tuple[Toy, list[Armed]]:
    """Return a training with some faults in it, and what counts whether they have fired."""
    kind: Any = Toy
    for fault in faults:
        kind = fault.on(kind)
    optimizer = next((f.optimizer for f in faults if f.optimizer), "SGD")
    armed = [vars(c)["chaos"] for c in kind.__mro__ if "chaos" in vars(c)]
    assert len(armed) == len(faults)
    return kind(optimizer, **settings), armed


def test_the_catalogue_has_many_faults_that_come_and_go() -> None:
    assert len(PASSING) >= 25
    assert {"nan in a weight", "1e30 in the momentum", "overflow in every step from epoch 2"} <= PASSING.keys()


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_comes_every_twenty_steps_costs_steps_and_no_learning(name: str) -> None:
    place, value = PASSING[name]
    steps = 120
    at = tuple(range(15, steps, 20))
    toy, (armed,) = faulty([Fault(place, value, at=at)])
    assert toy.run(drawn(steps)) == ""
    assert armed.fired == len(at)
    assert toy.mean_factor() == 1.0
    assert all(
        escalation.level in (EscalationLevel.ROLL_BACK, EscalationLevel.REPAIR) for escalation in toy.escalations
    )
    assert sum(escalation.lost for escalation in toy.escalations) <= EVERY + EVERY / 2 * (len(at) - 1)
    assert toy.healthy()
    assert toy.accuracy() > 0.9


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("interval", [5, 20, 50, 200])
def test_faults_of_all_kinds_by_chance_cost_steps_and_no_learning(interval: int, seed: int) -> None:
    """The gaps are drawn too, so that some faults follow each other at once."""
    dice = random.Random(f"{interval} {seed}")
    steps = 400 if interval == 200 else 200
    chosen: dict[tuple[str, float], list[int]] = {}
    step = 1 + int(dice.expovariate(1 / interval))
    kinds = sorted({(place, repr(value)) for place, value in PASSING.values()})
    while step < steps - 5:
        place, value = dice.choice(kinds)
        chosen.setdefault((place, float(value)), []).append(step)
        step += 1 + int(dice.expovariate(1 / interval))
    faults = [Fault(place, value, at=tuple(at)) for (place, value), at in chosen.items()]
    toy, armed = faulty(faults) if faults else (Toy("SGD"), [])
    assert toy.run(drawn(steps)) == ""
    assert sum(a.fired for a in armed) == sum(map(len, chosen.values()))
    assert toy.mean_factor() == 1.0
    assert toy.healthy()
    assert toy.accuracy() > 0.9


def flipped(value: torch.Tensor, bit: int) -> None:
    value.copy_((value.view(torch.int32) ^ (1 << bit)).view(torch.float32))


@pytest.mark.parametrize("bit", range(23, 31))
def test_an_exponent_bit_of_any_number_flips_every_twenty_steps(bit: int) -> None:
    dice, toy = random.Random(bit), Toy("AdamW")
    batches = drawn(160)
    for i in range(160):
        if i % 20 == 10:
            live = [t for n, t in toy.guard.state.live().items() if t.is_floating_point() and not n.endswith("/step")]
            tensor = dice.choice(live).detach().view(-1)
            flipped(tensor[dice.randrange(len(tensor)) :][:1], bit)
        toy.one(toy.preprocess_batch(next(batches)))
    assert toy.mean_factor() > 0.99
    assert EscalationLevel.HALT not in {escalation.level for escalation in toy.escalations}
    assert toy.healthy()
    assert toy.accuracy() > 0.9


# ---- a number that is wrong and finite --------------------------------------------------------------------------------------


def fitted(
    ruin: dict[int, tuple[int, float]], *, keep: bool = False, steps: int = 160
) -> tuple[StepGuard, list[Escalation], float]:
    """Fit a line with a weight overwritten before some steps; ``keep``: a snapshot is taken with it. Return the last loss too."""
    torch.manual_seed(0)
    model, escalations = nn.Linear(20, 1), list[Escalation]()
    config = GuardSettings.of({"patience": 8}).guard
    truth, loss, x, y = torch.randn(20), torch.zeros(()), torch.zeros(1, 20), torch.zeros(1)
    told: dict[str, Any] = {"again": lambda: (model(x)[:, 0] - y).square().mean(), "on_escalation": escalations.append}
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.05), config=config, **told)
    assert guard.recovery is not None
    for i in range(steps):
        if i in ruin:
            place, value = ruin[i]
            model.weight.data[0, place] = value
            if keep:
                guard.recovery._take(guard.state.live())
        x = torch.randn(32, 20)
        y = x @ truth + 0.1 * torch.randn(32)
        loss = (model(x)[:, 0] - y).square().mean()
        guard.backward(loss)
        guard.step()
        guard.settle()
    assert guard.inspect()
    return guard, escalations, loss.item()


@pytest.mark.parametrize("keep", [False, True], ids=["", "in-a-snapshot"])
@pytest.mark.parametrize("at", [90, 97, 100, 111])
def test_a_weight_that_is_wrong_and_finite_is_put_back_at_full_rate(at: int, keep: bool) -> None:
    guard, escalations, loss = fitted({at: (7, 300.0)}, keep=keep)
    assert [(escalation.level, escalation.lr_factor, escalation.culprits) for escalation in escalations] == [
        (EscalationLevel.ROLL_BACK, 1.0, ("model/weight",))
    ]
    assert "times its baseline" in escalations[0].reason
    assert escalations[0].damage[0].index == (0, 7)
    assert escalations[0].to_step is not None
    assert escalations[0].to_step <= at
    assert escalations[0].lost <= 8 + EVERY
    assert guard.recovery is not None
    assert guard.recovery.lr_backoff.rollbacks == 0
    assert loss < 0.05


def test_where_the_same_number_is_wrong_again_it_is_training_that_leads_there() -> None:
    _, escalations, loss = fitted({at: (7, 300.0) for at in (90, 100)})
    assert [escalation.lr_factor for escalation in escalations] == [1.0, 0.5]
    _, escalations, other = fitted({90: (7, 300.0), 100: (11, 300.0)})
    assert [escalation.lr_factor for escalation in escalations] == [1.0, 1.0]
    assert max(loss, other) < 0.05


# ---- rejections -------------------------------------------------------------------------------------------------------------

STREAMS: dict[str, Callable[[int, random.Random], bool]] = {
    "one in twenty": lambda i, dice: i % 20 == 7,
    "one in five": lambda i, dice: i % 5 == 2,
    "one in five by chance": lambda i, dice: dice.random() < 0.2,
    "two together": lambda i, dice: i % 13 in (4, 5),
    "three together": lambda i, dice: i % 19 in (4, 5, 6),
    "ten together, now and then": lambda i, dice: i % 100 in range(40, 50),
}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_bad_batches_never_halts_nor_slows(name: str, accumulate: int) -> None:
    dice, (guard, escalations, window) = random.Random(name), one_number(max_consecutive=20)
    bad = 0
    for i in range(600 if accumulate == 1 else 300):
        spoilt = [STREAMS[name](i * accumulate + m, dice) for m in range(accumulate)]
        bad += sum(spoilt)
        window(spoilt)
    assert guard.counts.rejected_micro_batches == bad >= 30
    assert escalations == []
    assert guard.recovery is not None
    assert guard.recovery.lr_backoff.factor == 1.0


def test_a_run_of_bad_batches_is_the_data_and_costs_no_learning() -> None:
    guard, escalations, window = one_number(max_consecutive=20)
    for i in range(800):
        window([i % 400 in range(100, 130)])  # thirty in a row: a source that is broken
    assert [escalation.level for escalation in escalations] == [EscalationLevel.ROLL_BACK] * 2
    assert {escalation.lr_factor for escalation in escalations} == {1.0}
    assert guard.counts.applied == 800 - 2 * 30


def test_training_that_leads_into_rejections_again_is_braked_from_the_second_time_on() -> None:
    weight, escalations = nn.Parameter(torch.zeros(1)), list[Escalation]()
    model = nn.ParameterList([weight])
    config = GuardSettings.of({"max_consecutive": 3, "max_loss_rise": None}).guard
    guard = StepGuard(model, torch.optim.SGD([weight], lr=1.0), config=config, on_escalation=escalations.append)

    def climb_the_hill(steps: int) -> None:
        for _ in range(steps):
            beyond = weight.item() > 20.0
            guard.backward(-weight.sum() * (math.nan if beyond else 1.0))
            guard.step()
            guard.settle()

    with pytest.raises(TrainingHaltedError, match="lower the learning rate"):
        climb_the_hill(1000)
    assert [escalation.lr_factor for escalation in escalations[:2]] == [1.0, 0.5]
    assert escalations[-1].level is EscalationLevel.HALT
    assert escalations[-1].lr_factor < 0.1
    assert weight.item() < 20.1, "no further than where it was first rejected"


def test_more_bad_windows_than_good_ones_halt() -> None:
    guard, _, window = one_number(max_consecutive=20)

    def stream() -> None:
        for i in range(1100):
            window([i % 5 < 3])

    with pytest.raises(
        TrainingHaltedError, match=r"of the last \d+ windows were rejected, more than guard\.max_share=0\.5"
    ):
        stream()
    assert 500 <= guard.counts.micro_batches <= 1000


def one_number(**settings: Any) -> tuple[StepGuard, list[Escalation], Callable[[list[bool]], None]]:
    model = nn.Linear(1, 1)
    escalations: list[Escalation] = []
    config = GuardSettings.of(settings).guard
    guard = StepGuard(
        model, torch.optim.SGD(model.parameters(), lr=1e-4), config=config, on_escalation=escalations.append
    )

    def window(spoilt: list[bool]) -> None:
        for bad in spoilt:
            guard.backward(model(torch.full((1, 1), math.nan if bad else 1.0)).square().sum())
        guard.step()
        guard.settle()

    return guard, escalations, window


# ---- what never goes away ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in PASSING if PASSING[name][0] not in {"ema", "exp_avg_sq", "label"}])
def test_a_fault_of_every_batch_halts_within_the_bound_or_is_harmless(name: str) -> None:
    place, value = PASSING[name]
    toy, (armed,) = faulty([Fault(place, value, since=30)], max_consecutive=9)
    most = most_micro_batches(toy.guard.config, 1)
    why = toy.run(drawn(40 + most))
    assert armed.fired > 8
    assert toy.healthy()
    assert "8 rollbacks did not help" in why, toy.escalations[-3:]
    assert toy.guard.counts.micro_batches <= 30 + most


def test_the_halt_says_which_number_it_was_and_what_to_do() -> None:
    toy, _ = faulty([Fault("weight", math.nan, since=30)])
    why = toy.run(drawn(200))
    assert "Ruined: model/3.weight[4, 4, 1, 1] is nan, " in why
    assert "yolo-stable validate --stress" in why
    assert "lower the learning rate" not in why


@pytest.mark.parametrize("gap", [2, 4, 8])
def test_the_same_number_ruined_again_at_once_halts_although_steps_are_taken_in_between(gap: int) -> None:
    toy, _ = faulty([Fault("weight", math.nan, at=tuple(range(40, 160, gap)))])
    why = toy.run(drawn(160))
    assert "8 rollbacks did not help" in why
    assert toy.guard.counts.micro_batches <= 40 + 9 * gap + 1
    assert toy.mean_factor() == 1.0


@pytest.mark.parametrize("gap", [2, 4, 8])
def test_another_number_each_time_is_forgiven_as_long_as_steps_are_taken_in_between(gap: int) -> None:
    toy, dice = Toy("SGD"), random.Random(gap)
    for i, batch in enumerate(drawn(160)):
        if i >= 40 and i % gap == 0:
            tensor = dice.choice([p.detach() for p in toy.model.parameters() if p.numel() > 16]).view(-1)
            tensor[dice.randrange(len(tensor))] = math.nan
        toy.one(batch)
    assert toy.healthy()
    assert toy.mean_factor() == 1.0
    trained = toy.guard.recovery.trained  # type: ignore[union-attr]
    assert trained > 40 + 120 / 3
