"""Every fault fires when and where it says, and changes nothing else: in a small loop of one's own, and in real training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from faulty import Loop
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionTrainer

from benchmarks.contenders import ClipAndSkipTrainer
from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import CATALOGUE, INF, NAN, PLACES, STATE_PLACES, Fault
from yolo_stable.errors import InvalidCallError

pytestmark = pytest.mark.usefixtures("without_epilogue")

EPOCHS, BATCHES = 4, 6


def trained(fault: Fault, batches: int = 4, **options: Any) -> Any:
    return fault.on(Loop)(**options).train(batches)


def written(tensors: list[Tensor], value: float) -> list[tuple[int, tuple[int, ...]]]:
    """Return where a value stands: number of the tensor, and index of the element."""
    found = []
    for number, tensor in enumerate(tensors):
        hits = tensor.isnan() if math.isnan(value) else tensor == torch.tensor(value)
        found += [(number, tuple(index)) for index in hits.nonzero().tolist()]
    return found


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


VALUES = (NAN, INF, -INF, 1e30)


@pytest.mark.parametrize("value", VALUES)
def test_a_pixel_of_its_batch_and_of_no_other(value: float) -> None:
    loop = trained(Fault("pixel", value, at=(1,)))
    assert [written([seen["img"]], value) for seen in loop.seen] == [[], [(0, (1, 1, 6, 6))], [], []]
    assert (loop.chaos.fired, loop.chaos.batches, loop.chaos.due) == (1, 4, 0)


def test_a_label_is_changed_in_a_copy() -> None:
    loop = trained(Fault("label", 99, at=(1, 2)))
    assert [seen["cls"].flatten().tolist() for seen in loop.seen] == [[1, 1, 1], [1, 99, 1], [1, 99, 1], [1, 1, 1]]
    assert all(bool((seen["raw"]["cls"] == 1).all()) for seen in loop.seen), "the loader's own"


def test_a_fault_without_a_label_waits() -> None:
    loop = trained(Fault("label", 99, at=(1, 2)), labels=0)
    assert (loop.chaos.fired, loop.chaos.due) == (0, 2)


@pytest.mark.parametrize("value", [*VALUES, 3.0])
def test_the_loss_and_its_first_item_once(value: float) -> None:
    loop = trained(Fault("loss", value, at=(2,)))
    for number, seen in enumerate(loop.seen):
        factor = value if number == 2 else 1.0
        torch.testing.assert_close(seen["loss"], seen["clean"] * factor, equal_nan=True)
        torch.testing.assert_close(seen["items"]["box"], seen["items"]["cls"] * factor, equal_nan=True)
    assert loop.chaos.fired == 1


def test_a_loss_that_is_put_back_by_a_guard_stays_as_it_is() -> None:
    loop = trained(Fault("loss", NAN, since=3))
    loop.loss = torch.tensor(7.0)
    loop.loss_items = {"box": 1.0}
    assert (float(loop.loss), loop.loss_items, loop.chaos.fired) == (7.0, {"box": 1.0}, 1)


def test_attributes_that_are_not_set_yet_are_missing() -> None:
    kind = Fault("loss", NAN, at=(0,)).on(Loop)
    loop = kind()
    assert loop.loss is None
    assert not hasattr(loop, "loss_items")
    assert kind.loss.name == "loss"


@pytest.mark.parametrize("value", VALUES)
def test_one_element_of_the_first_gradient(value: float) -> None:
    loop = trained(Fault("gradient", value, at=(1,)))
    places = [written(seen["gradients"], value) for seen in loop.seen[:2]]
    assert places == [[], [(0, (2, 1, 1, 1))]]


def test_a_gradient_waits_for_the_step_of_its_window() -> None:
    loop = trained(Fault("gradient", INF, at=(0,)), accumulate=2)
    assert written(loop.seen[1]["gradients"], INF) == [(0, (2, 1, 1, 1))]
    assert loop.chaos.fired == 1


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    ("place", "adam"),
    [(place, adam) for place in STATE_PLACES for adam in (False, True) if adam or place != "exp_avg_sq"],
)
def test_one_element_of_the_state_between_two_steps(place: str, adam: bool, value: float) -> None:
    loop = trained(Fault(place, value, at=(2,)), 3, adam=adam)
    where = {"weight": (4, (2, 2, 1, 1)), "ema": (7, (2, 2, 1, 1)), "running_var": (1, (2,))}
    expected = where.get(place, (4, (2, 2, 1, 1)))
    for seen in loop.seen[:2]:
        assert all(same(seen["before"][p], seen["state"][p]) for p in STATE_PLACES)
    seen = loop.seen[2]
    assert written(seen["state"][place], value) == [expected]
    assert written(seen["before"][place], value) == []
    assert all(same(seen["before"][p], seen["state"][p]) for p in STATE_PLACES if p != place)
    assert loop.chaos.fired == 1


@pytest.mark.parametrize("place", ["momentum", "exp_avg_sq"])
def test_state_that_is_not_there_yet_is_waited_for(place: str) -> None:
    loop = trained(Fault(place, INF, at=(0, 1)), 5, adam=True, accumulate=2)
    fired = [not same(seen["before"][place], seen["state"][place]) for seen in loop.seen if seen["before"][place]]
    assert len(loop.seen) - len(fired) == 2, "no step was taken before the first two batches"
    assert fired[0], "as soon as it is there"
    assert loop.chaos.fired == 2


@pytest.mark.parametrize(("place", "kind"), [("exp_avg_sq", torch.optim.SGD), ("momentum", torch.optim.RMSprop)])
def test_state_that_the_optimizer_never_has_is_an_error(place: str, kind: Any) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}
    loop = Fault(place, NAN, at=(1,)).on(Loop)()
    loop.optimizer = kind(loop.model.parameters(), lr=0.01, **options)
    with pytest.raises(InvalidCallError, match=f"keeps no {place}"):
        loop.train(2)


def test_a_place_is_found_in_any_memory_layout() -> None:
    loop = Fault("weight", INF, at=(0,)).on(Loop)()
    loop.model.to(memory_format=torch.channels_last)
    loop.train(1)
    assert written(loop.seen[0]["state"]["weight"], INF) == [(4, (2, 2, 1, 1))]


def test_nobody_is_told_that_a_weight_was_written() -> None:
    """As with a memory that flips: version counters are what autograd and the guard notice writing by."""
    loop = Fault("weight", 5.0, at=(0,)).on(Loop)()
    versions = [p._version for p in loop.model.parameters()]
    loop.preprocess_batch({"img": torch.zeros(1, 3, 12, 12), "cls": torch.ones(1, 1)})
    assert [p._version for p in loop.model.parameters()] == versions
    assert written(list(loop.model.parameters()), 5.0) == [(4, (2, 2, 1, 1))]


def test_the_learning_rate_of_the_step_alone() -> None:
    loop = Fault("lr", 100.0, since=2).on(Loop)()
    rates = []
    for rate in (0.5, 0.25, 0.125, 0.0625):  # a loop that sets its own before each batch
        loop.optimizer.param_groups[0]["lr"] = rate
        loop.train(1)
        rates.append(loop.seen[-1]["lr"])
        assert loop.optimizer.param_groups[0]["lr"] == rate, "put back"
    assert rates == [0.5, 0.25, 12.5, 6.25]
    assert loop.chaos.fired == 2


def test_a_learning_rate_that_the_step_itself_changed_is_left() -> None:
    class Changing(Loop):
        def optimizer_step(self) -> None:
            super().optimizer_step()
            self.optimizer.param_groups[0]["lr"] = 0.003

    assert trained_by(Changing, Fault("lr", 100.0, since=0)).optimizer.param_groups[0]["lr"] == 0.003


def test_the_learning_rate_is_put_back_when_the_step_fails() -> None:
    class Failing(Loop):
        def optimizer_step(self) -> None:
            raise ArithmeticError

    loop = Fault("lr", 100.0, since=0).on(Failing)()
    with pytest.raises(ArithmeticError):
        loop.train(1)
    assert loop.optimizer.param_groups[0]["lr"] == 0.01


def trained_by(kind: type[Loop], fault: Fault) -> Any:
    return fault.on(kind)().train(1)


def test_every_gradient_of_every_step_overflows() -> None:
    loop = trained(Fault("overflow", INF, since=1), 3)
    whole = [all(bool((g == INF).all()) for g in seen["gradients"]) for seen in loop.seen]
    assert whole == [False, True, True]
    assert loop.chaos.fired == 2


def test_a_window_is_owed_one_fault_and_not_one_for_each_micro_batch() -> None:
    assert trained(Fault("overflow", INF, since=0), 6, accumulate=3).chaos.fired == 2


def test_two_runs_do_not_count_for_each_other() -> None:
    fault = Fault("pixel", NAN, at=(0,))
    first, second = trained(fault), fault.on(Loop)()
    assert (first.chaos.fired, second.chaos.fired, second.chaos.batches) == (1, 0, 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        fault.value = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"place": "wieght", "at": (0,)}, "Did you mean 'weight'"),
        ({"place": "pixel"}, "needs batches"),
        ({"place": "pixel", "at": (-1,)}, "counted from 0"),
        ({"place": "pixel", "since": -1}, "counted from 0"),
    ],
)
def test_a_fault_that_would_never_fire_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidCallError, match=said):
        Fault(value=NAN, **arguments)


def test_the_catalogue_has_every_place() -> None:
    faults = {name: make(EPOCHS, BATCHES) for name, make in CATALOGUE.items()}
    assert {fault.place for fault in faults.values()} == set(PLACES)
    state = [fault for fault in faults.values() if fault.place in STATE_PLACES]
    assert len({(fault.place, str(fault.value)) for fault in state}) == 15, "three values in five places"
    assert faults["nan in a weight, in the first epoch"].at == (1,)
    assert faults["nan pixel, in every epoch"].at == (1, 7, 13, 19)
    assert faults["nan pixel, last batch"].at == (23,)
    assert faults["lr 100 times too high from epoch 3"].since == 12


@pytest.mark.parametrize("name", CATALOGUE)
def test_every_fault_of_the_catalogue_fires_as_often_as_it_says(name: str) -> None:
    fault = CATALOGUE[name](EPOCHS, BATCHES)
    batches = EPOCHS * BATCHES
    loop = trained(fault, batches, adam=True)
    assert loop.chaos.fired == (len(fault.at) if fault.since is None else batches - fault.since)


IN_THE_STEP = ("gradient", "momentum", "lr")


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        *((place, kind) for place in PLACES for kind in (DetectionTrainer, StableDetectionTrainer)),
        *((place, ClipAndSkipTrainer) for place in IN_THE_STEP),  # has a step of its own, and all else of stock
    ],
)
def test_real_training_takes_every_fault(
    place: str, kind: type, arguments: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a value that hurts nobody, so that each run gets to its end; what a bad one does is told elsewhere."""
    value = {"label": 1.0, "running_var": 1.0, "exp_avg_sq": 1e-4}.get(place, 0.5)
    fault = Fault(place, value, at=(1, 2))
    steps: list[float] = []
    stock = kind.optimizer_step
    monkeypatch.setattr(kind, "optimizer_step", lambda self: (steps.append(_rate(self)), stock(self))[1])
    trainer = fault.on(kind)(
        overrides=arguments(epochs=1, warmup_epochs=0, optimizer=fault.optimizer or "SGD", val=False, workers=0)
    )
    trainer.train()
    assert (trainer.chaos.fired, trainer.chaos.batches) == (2, 4)
    assert trainer.last.is_file()
    if place == "lr":
        assert [round(rate / steps[0], 3) for rate in steps] == [1.0, 0.5, 0.5, 1.0]


def _rate(trainer: Any) -> float:
    return trainer.optimizer.param_groups[0]["lr"]


def test_one_nan_weight_ruins_a_network_that_nobody_looks_after(arguments: Callable[..., dict[str, Any]]) -> None:
    trainer = Fault("weight", NAN, at=(1,)).on(DetectionTrainer)(overrides=arguments(epochs=1, workers=0))
    trainer.train()
    kernels = [p for p in trainer.model.parameters() if p.ndim == 4 and p.requires_grad]
    ruined = sum(not bool(p.isfinite().all()) for p in kernels)
    assert ruined > len(kernels) / 2, "written to one"
