from __future__ import annotations

import importlib
import inspect
import math
import pkgutil
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import yolo_stable.guard
from yolo_stable.errors import InvalidCallError, TrainingHaltedError
from yolo_stable.guard import Counts, GuardConfig, GuardVerdict, StepGuard
from yolo_stable.guard.baseline import Baseline
from yolo_stable.guard.decision import NO_GRADIENT
from yolo_stable.guard.divergence import Divergence
from yolo_stable.guard.loss_scale import LossScale
from yolo_stable.guard.recovery import Recovery

NAN, INF = math.nan, math.inf


def line(start: float = 0.0) -> nn.Linear:
    """Return f = p * x; its gradient is x."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    return model


def loss_of(model: nn.Module, x: float) -> Tensor:
    return model(torch.full((1, 1), x)).sum()


def guarded(start: float = 0.0, **settings: Any) -> tuple[nn.Linear, StepGuard]:
    model = line(start)
    return model, StepGuard(model, torch.optim.SGD(model.parameters(), lr=1.0), **settings)


class Normed(nn.Module):
    """BatchNorm with momentum 0.5 before p * x: its running mean follows the batches' means in known steps."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(1, momentum=0.5)
        self.line = line(1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(self.norm(x))

    @property
    def mean(self) -> float:
        assert self.norm.running_mean is not None
        return self.norm.running_mean.item()

    def loss(self, mean: float) -> Tensor:
        return self(torch.tensor([[mean - 1.0], [mean + 1.0]])).square().mean()


def normed() -> tuple[Normed, StepGuard]:
    model = Normed()
    return model, StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1))


# ---- what it takes -----------------------------------------------------------------------------------------------------


def test_settings_are_given_by_name_or_as_a_config() -> None:
    assert guarded(max_norm=5.0)[1].config == GuardConfig(max_norm=5.0)
    config = GuardConfig(max_norm=5.0)
    assert guarded(config=config)[1].config is config
    assert guarded()[1].config == GuardConfig()


def test_settings_and_a_config_together_are_refused() -> None:
    message = r"^Give config= or single settings \(max_norm, batchnorm\), not both\.$"
    with pytest.raises(InvalidCallError, match=message):
        guarded(config=GuardConfig(), max_norm=5.0, batchnorm=False)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(InvalidCallError, match=r"^guard has no setting 'max_nrom'\. Did you mean 'max_norm'\?$"):
        guarded(max_nrom=5.0)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (0,)], ids=str)
def test_a_loss_that_is_not_one_number_is_refused(shape: tuple[int, ...]) -> None:
    _, guard = guarded()
    message = f"StepGuard.backward() takes a loss of one element, not of shape {shape}. Reduce it first."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        guard.backward(torch.ones(shape, requires_grad=True))
    assert guard.counts == Counts()


@pytest.mark.parametrize("shape", [(2,), (0,)], ids=str)
def test_an_item_that_is_not_one_number_is_refused_by_name(shape: tuple[int, ...]) -> None:
    model, guard = guarded()
    message = f"StepGuard.backward() takes loss items of one element, but 'box' has shape {shape}."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        guard.backward(loss_of(model, 1.0), {"cls": 1.0, "box": torch.ones(shape)})
    assert guard.counts == Counts()


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
def test_a_loss_of_one_element_may_have_any_shape(shape: tuple[int, ...]) -> None:
    model, guard = guarded()
    loss = loss_of(model, 3.0).reshape(shape)
    assert guard.backward(loss, {"same": loss}).items == {"same": 0.0}
    assert guard.step().norm == 3.0


@pytest.mark.parametrize(
    ("item", "read"),
    [
        (torch.tensor(1.5), 1.5),
        (torch.tensor([1.5]), 1.5),
        (torch.tensor(1.5, dtype=torch.float16), 1.5),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (torch.tensor(1e300, dtype=torch.float64), 1e300),
        (torch.tensor(3), 3.0),
        (torch.tensor(True), 1.0),
        (torch.tensor(1.5, requires_grad=True), 1.5),
        (0.1, 0.1),
        (3, 3.0),
        (2**24 + 1, 2.0**24 + 1),
        (1e300, 1e300),
    ],
    ids=[
        *("float32", "one-element", "float16", "bfloat16", "float64", "int64", "bool", "requires-grad"),
        *("number", "whole-number", "beyond-float32", "huge"),
    ],
)
def test_items_are_read_as_they_are(item: Tensor | float, read: float) -> None:
    model, guard = guarded()
    decision = guard.backward(
        loss_of(model, 1.0), {"first": torch.tensor(0.25), "item": item, "last": torch.tensor(0.75)}
    )
    assert decision
    assert decision.items == {"first": 0.25, "item": read, "last": 0.75}
    assert list(decision.items) == ["first", "item", "last"]
    assert all(type(value) is float for value in decision.items.values())


@pytest.mark.parametrize("wrong", [NAN, INF, -INF], ids=str)
@pytest.mark.parametrize("kind", ["number", "tensor", "float16", "float64"])
def test_an_item_that_is_not_finite_rejects(kind: str, wrong: float) -> None:
    dtypes = {"tensor": torch.float32, "float16": torch.float16, "float64": torch.float64}
    model, guard = guarded(1.0)
    item = wrong if kind == "number" else torch.tensor(wrong, dtype=dtypes[kind])
    decision = guard.backward(loss_of(model, 2.0), {"box": 1.0, "cls": item})
    assert decision.verdict is GuardVerdict.REJECT_MICRO_BATCH
    assert decision.reason == f"cls {wrong}"
    assert decision.loss == 2.0
    assert model.weight.grad is None


def test_an_item_called_loss_does_not_hide_the_loss() -> None:
    model, guard = guarded()
    assert guard.backward(loss_of(model, NAN), {"loss": 1.0}).reason == "loss nan"


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_a_loss_of_another_dtype_is_trained(dtype: torch.dtype) -> None:
    model = line(1.0).to(dtype)
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=1.0))
    loss = model(torch.full((1, 1), 3.0, dtype=dtype)).sum()
    assert guard.backward(loss, {"same": loss}).loss == 3.0
    assert guard.step().norm == 3.0
    assert model.weight.item() == -2.0


def test_a_loss_that_only_float64_can_hold_is_finite() -> None:
    model = line(1.0).double()
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=1.0))
    decision = guard.backward(model(torch.full((1, 1), 1e300, dtype=torch.float64)).sum(), {"half": torch.tensor(0.5)})
    assert decision
    assert decision.loss == 1e300


# ---- what it does ------------------------------------------------------------------------------------------------------


def test_gradients_accumulate_over_the_healthy_micro_batches_of_a_window() -> None:
    model, guard = guarded()
    verdicts = [guard.backward(loss_of(model, x)).verdict for x in (1.0, NAN, 2.0, INF, 4.0)]
    assert verdicts.count(GuardVerdict.REJECT_MICRO_BATCH) == 2
    assert guard.step().norm == 7.0
    assert model.weight.item() == -7.0


def test_the_last_decision_is_kept() -> None:
    model, guard = guarded(2.0, max_consecutive=1)
    assert guard.last is None
    decision = guard.backward(loss_of(model, 1.0))
    assert guard.last is decision
    decision = guard.step()
    assert guard.last is decision
    decision = guard.backward(loss_of(model, NAN))
    assert guard.last is decision
    with pytest.raises(TrainingHaltedError):
        guard.backward(loss_of(model, INF))
    assert guard.last is not decision
    assert guard.last is not None
    assert guard.last.reason == "loss inf"


def test_running_statistics_alone_reject_and_are_named() -> None:
    model, guard = normed()
    assert guard.backward(model.loss(4.0))
    model(torch.tensor([[3e38], [3e38]]))  # the sum overflows; nobody asked for a loss of it
    loss = torch.ones((), requires_grad=True)
    decision = guard.backward(loss)
    assert decision.verdict is GuardVerdict.REJECT_MICRO_BATCH
    assert decision.reason == "running statistics of BatchNorm not finite"
    assert decision.culprits[0].startswith("norm.running_")
    assert loss.grad is None
    assert model.mean == 2.0


def test_running_statistics_are_let_be_when_they_are_not_protected() -> None:
    model = Normed()
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1), batchnorm=False)
    assert guard.shadow is None
    decision = guard.backward(model.loss(NAN))
    assert (decision.reason, decision.culprits) == ("loss nan", ())
    assert math.isnan(model.mean)
    guard.step()
    guard.resync()
    guard.abandon_window()
    guard.load_state_dict(guard.state_dict())


def test_a_rejected_window_takes_the_statistics_of_all_its_micro_batches_back() -> None:
    model, guard = normed()
    assert guard.backward(model.loss(8.0))
    assert guard.step()
    assert model.mean == 4.0
    for mean in (0.0, 2.0):
        assert guard.backward(model.loss(mean))
    assert model.mean == 2.0
    assert model.line.weight.grad is not None
    model.line.weight.grad.fill_(NAN)
    assert guard.step().culprits == ("line.weight",)
    assert model.mean == 4.0


def test_an_abandoned_window_is_undone_and_not_counted() -> None:
    model, guard = normed()
    assert guard.backward(model.loss(8.0))
    assert guard.step()
    before, weight = guard.counts.to_dict(), model.line.weight.item()
    guard.backward(model.loss(0.0))
    during = guard.counts.to_dict()
    model(torch.full((2, 1), NAN))  # a forward pass that runs out of memory half way
    guard.abandon_window()
    assert model.mean == 4.0
    assert all(p.grad is None for p in model.parameters())
    assert guard.counts.to_dict() == during
    assert {**during, "micro_batches": during["micro_batches"] - 1} == before
    assert guard.step().verdict is GuardVerdict.EMPTY
    assert model.line.weight.item() == weight
    assert guard.backward(model.loss(4.0))
    assert guard.step()
    assert model.mean == 4.0


@pytest.mark.parametrize("step", ["reference", "fused"])
def test_a_loss_that_depends_on_nothing_trained_is_a_rejection_and_no_crash(step: str) -> None:
    """A number without a graph, for which torch raises, and a new leaf, for which stock trains nothing and says nothing."""
    model, told = Normed(), []
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=1.0), step=step, on_reject=told.append)
    assert guard.backward(model.loss(8.0))
    assert guard.step()
    before = model.mean, model.line.weight.item()

    model.loss(0.0)
    assert not guard.backward(torch.zeros(()))
    assert guard.step().verdict is GuardVerdict.EMPTY
    model.loss(0.0)
    assert guard.backward(torch.zeros(3, requires_grad=True).sum()), "its graph would have to be walked"
    assert guard.step().verdict is GuardVerdict.REJECT_WINDOW
    assert (model.mean, model.line.weight.item()) == before
    assert [decision.reason for decision in told] == [NO_GRADIENT] * 2
    assert (guard.counts.rejected_micro_batches, guard.counts.rejected_windows) == (1, 1)

    # A true 0 with a graph, as that of a batch without objects, is a step like any other; so is one beside a constant.
    assert guard.backward(model.loss(8.0) * 0)
    assert guard.step()
    guard.backward(torch.zeros(3, requires_grad=True).sum())
    assert guard.backward(model.loss(8.0))
    assert guard.step()
    assert len(told) == 2


def test_a_loss_that_depends_on_nothing_trained_halts_a_run_in_the_end() -> None:
    model, guard = guarded()

    def train() -> None:
        for _ in range(1000):
            guard.backward(loss_of(model, 1.0).detach())
            guard.step()

    with pytest.raises(TrainingHaltedError, match=NO_GRADIENT):
        train()


def test_a_loss_of_frozen_parts_alone_is_a_rejection() -> None:
    model, guard = guarded(1.0)
    model.requires_grad_(False)
    assert guard.backward(loss_of(model, 1.0)).reason == NO_GRADIENT


def test_abandoning_nothing_changes_nothing() -> None:
    model, guard = normed()
    guard.abandon_window()
    assert (model.mean, guard.counts) == (0.0, Counts())


def test_after_resync_a_rejection_goes_back_to_what_was_loaded() -> None:
    model, guard = normed()
    assert guard.backward(model.loss(8.0))
    assert guard.step()
    loaded = {**model.state_dict(), "norm.running_mean": torch.tensor([100.0])}
    model.load_state_dict(loaded)
    guard.resync()
    assert not guard.backward(model.loss(NAN))
    assert model.mean == 100.0


class NoGradient(torch.autograd.Function):
    """The sum of two numbers that has a gradient in the first only."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0], None


def test_with_shared_gradients_a_bad_loss_makes_all_gradients_nan_and_only_those() -> None:
    model = nn.ParameterList([nn.Parameter(torch.full((2,), float(i))) for i in range(4)])
    reached, clamped, without, unused = model
    unused.requires_grad_(False)
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=1.0))
    guard.ranks.shared = True
    loss = NoGradient.apply(reached, without).sum() + (clamped + NAN).clamp(max=1.0).sum()
    decision = guard.backward(loss)
    assert (decision.verdict, decision.reason) == (GuardVerdict.REJECT_MICRO_BATCH, "loss nan")
    assert guard.last is decision
    assert guard.counts == Counts(micro_batches=1)
    assert [p.grad is None for p in model] == [False, False, True, True]
    assert all(bool(p.grad.isnan().all()) for p in model if p.grad is not None)
    assert guard.step().culprits == ("0", "1")
    assert [p.tolist() for p in model] == [[float(i)] * 2 for i in range(4)]
    assert not any(p._backward_hooks for p in model)


# ---- the scaler --------------------------------------------------------------------------------------------------------


def test_the_scaler_may_be_exchanged_between_windows() -> None:
    model, guard = guarded()
    assert guard.scaler is None
    guard.backward(loss_of(model, 1.0))
    assert model.weight.grad is not None
    assert model.weight.grad.item() == 1.0
    assert guard.step().norm == 1.0
    for scale in (8.0, 1024.0):
        guard.scaler = scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1)
        assert guard.scaler is scaler
        guard.backward(loss_of(model, 1.0))
        assert model.weight.grad is not None
        assert model.weight.grad.item() == scale
        assert guard.step().norm == 1.0
        assert scaler.get_scale() == 2 * scale
    guard.scaler = None
    guard.backward(loss_of(model, 1.0))
    assert guard.step().norm == 1.0
    assert model.weight.item() == -4.0


def test_an_abandoned_window_leaves_the_scaler_ready() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    model, guard = guarded(scaler=scaler)
    guard.backward(loss_of(model, 1.0))
    guard.abandon_window()
    guard.backward(loss_of(model, 3.0))
    assert guard.step().norm == 3.0
    assert scaler.get_scale() == 8.0


# ---- its state ---------------------------------------------------------------------------------------------------------


def decided(guard: StepGuard, model: nn.Module, x: float) -> tuple[str, ...]:
    """Return what becomes of a window of one micro-batch."""
    try:
        return guard.backward(loss_of(model, x)).verdict.value, guard.step().verdict.value
    except TrainingHaltedError as error:
        return ("halted", str(error))


@pytest.mark.parametrize(
    ("history", "then", "halts"),
    [
        ([], [1.0, NAN, NAN], False),
        ([NAN, NAN], [NAN], True),  # one rejection before the limit in a row
        ([NAN, NAN], [1.0, NAN], False),
        ([NAN, 1.0, NAN, 1.0, 1e13, 1.0], [1.0, NAN], True),  # one rejection before the limit in all
        ([1.0, 20.0, 1e13], [1e13, 1.0, 30.0], False),
    ],
    ids=["fresh", "row", "row-broken", "total", "mixed"],
)
def test_a_guard_with_the_same_state_decides_the_same(history: list[float], then: list[float], halts: bool) -> None:
    model, guard = guarded(max_consecutive=2, max_total=3)
    for x in history:
        decided(guard, model, x)
    twin_model, twin = guarded(model.weight.item(), max_consecutive=2, max_total=3)
    twin.load_state_dict(guard.state_dict())
    assert twin.state_dict() == guard.state_dict()
    outcomes = [decided(guard, model, x) for x in then]
    assert [decided(twin, twin_model, x) for x in then] == outcomes
    assert twin.counts == guard.counts
    assert [outcome[0] == "halted" for outcome in outcomes] == [False] * (len(then) - 1) + [halts]


def test_loading_a_state_begins_with_the_model_as_it_is() -> None:
    model, guard = normed()
    assert guard.backward(model.loss(8.0))
    model.load_state_dict({**model.state_dict(), "norm.running_mean": torch.tensor([7.0])})
    guard.load_state_dict(guard.state_dict())
    assert not guard.backward(model.loss(NAN))
    assert model.mean == 7.0


FINE = Counts().to_dict()


DAMAGED: dict[str, Any] = {
    "empty": {},
    "none": None,
    "list": [],
    "no-counts": {"counts": None},
    "counts-are-a-number": {"counts": 5},
    "counts-are-empty": {"counts": {}},
    "keys-missing": {"counts": {"applied": 1}},
    "a-key-more": {"counts": {**FINE, "more": 1}},
    "word": {"counts": {**FINE, "applied": "many"}},
    "number-as-text": {"counts": {**FINE, "applied": "1"}},
    "fraction": {"counts": {**FINE, "applied": 1.5}},
    "nan": {"counts": {**FINE, "applied": NAN}},
    "null": {"counts": {**FINE, "applied": None}},
    "bool": {"counts": {**FINE, "applied": True}},
    "negative": {"counts": {**FINE, "consecutive": -1}},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_state_is_refused_and_nothing_is_loaded(name: str) -> None:
    model, guard = guarded()
    guard.backward(loss_of(model, 1.0))
    before = guard.state_dict()
    message = (
        r"^This is not the state of a StepGuard: counts=.*\. They must be whole numbers of 0 or more named micro_batches,"
        r" applied, clipped, rejected_micro_batches, rejected_windows, consecutive, jumps,"
        r" rollbacks\.$"
    )
    with pytest.raises(InvalidCallError, match=message):
        guard.load_state_dict(DAMAGED[name])
    assert guard.state_dict() == before


def test_the_state_is_a_copy() -> None:
    model, guard = guarded()
    state = guard.state_dict()
    guard.backward(loss_of(model, 1.0))
    assert state == {"counts": FINE}
    guard.load_state_dict(state)
    guard.backward(loss_of(model, 1.0))
    assert state == {"counts": FINE}


def stateful_classes() -> dict[str, type[Any]]:
    """Find every class of the guard that can be saved and loaded."""
    found = {}
    for info in pkgutil.walk_packages(yolo_stable.guard.__path__, "yolo_stable.guard."):
        for _, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            if cls.__module__.startswith("yolo_stable.guard") and {"state_dict", "load_state_dict"} & set(dir(cls)):
                found[cls.__name__] = cls
    return found


def used_guard() -> StepGuard:
    model, guard = guarded()
    for x in (1.0, NAN, 1e13, 20.0, 1.0, NAN):
        decided(guard, model, x)
    return guard


def used_scale() -> LossScale:
    made, scaler = LossScale(1.0), torch.amp.GradScaler("cpu", init_scale=64.0)
    scaler.load_state_dict({**scaler.state_dict(), "_growth_tracker": 5})
    scaler.scale(torch.ones(()))
    scaler._per_optimizer_states[0]["found_inf_per_device"] = {torch.device("cpu"): torch.ones(())}
    assert made.rejected(scaler, overflowed=True) == ", loss scale 64 -> 32"
    return made


def recovery_of(guard: StepGuard) -> Recovery:
    assert guard.recovery is not None
    return guard.recovery


def used_recovery() -> Recovery:
    model, guard = guarded(snapshot_every=1, max_consecutive=1, max_loss_rise=4.0)
    for x in (1.0, 2.0, NAN, NAN, 1.0):
        decided(guard, model, x)
    assert guard.counts.rollbacks == 1
    return recovery_of(guard)


def used_divergence() -> Divergence:
    divergence = Divergence(4.0, 20.0, 3)
    for loss in (1.0, 2.0, 3.0, 50.0):
        divergence.add(loss, loss)
    return divergence


def used_baseline() -> Baseline:
    baseline = Baseline("loss", 4.0, 3)
    for value in (1.0, 2.0, 3.0, 50.0):
        baseline.add(value)
    return baseline


MAKERS: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "StepGuard": (used_guard, lambda: guarded()[1]),
    "LossScale": (used_scale, lambda: LossScale(1.0)),
    "Recovery": (used_recovery, lambda: recovery_of(guarded(snapshot_every=1, max_loss_rise=4.0)[1])),
    "Divergence": (used_divergence, lambda: Divergence(4.0, 20.0, 3)),
    "Baseline": (used_baseline, lambda: Baseline("loss", 4.0, 3)),
}


@pytest.mark.parametrize("name", stateful_classes())
def test_whatever_can_be_saved_comes_back_the_same(name: str, tmp_path: Any) -> None:
    assert name in MAKERS, f"{name} has a state: add how it is made, used and fresh"
    used, fresh = (make() for make in MAKERS[name])
    assert type(used) is type(fresh) is stateful_classes()[name]
    state = used.state_dict()
    assert state != fresh.state_dict()
    torch.save(state, tmp_path / "state.pt")
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert fresh.state_dict() == state


def test_the_search_finds_the_classes_that_have_a_state() -> None:
    assert set(stateful_classes()) == set(MAKERS)
