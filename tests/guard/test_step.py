from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from equality import assert_same
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.optim import MuSGD

from yolo_stable.guard import GuardConfig, GuardVerdict, StepGuard, step
from yolo_stable.guard.step import ReferenceStep, to_device_vector

NAN, INF = math.nan, math.inf


def network() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 3, 3, bias=False), nn.Flatten(), nn.Linear(12, 5)
    )


def groups(model: nn.Module, use_muon: bool = False, **settings: Any) -> list[dict[str, Any]]:
    """Return parameter groups as Ultralytics builds them: biases, weights with decay, norms, and for Muon the matrices."""
    weights, norms, biases, matrices = [], [], [], []
    for name, module in model.named_modules():
        for key, parameter in module.named_parameters(recurse=False):
            if parameter.ndim in {2, 4} and use_muon:
                matrices.append(parameter)
            elif "bias" in f"{name}.{key}":
                biases.append(parameter)
            elif isinstance(module, nn.BatchNorm2d):
                norms.append(parameter)
            else:
                weights.append(parameter)
    made = [
        {"params": weights, **settings, "weight_decay": 5e-4, "param_group": "weight"},
        {"params": norms, **settings, "weight_decay": 0.0, "param_group": "bn"},
        {"params": biases, **settings, "param_group": "bias"},
    ]
    if use_muon:
        made.append({"params": matrices, **settings, "weight_decay": 5e-4, "use_muon": True, "param_group": "muon"})
    return [group for group in made if group["params"]]


Maker = Callable[[nn.Module], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Maker] = {
    "SGD": lambda m: torch.optim.SGD(groups(m, lr=0.01, momentum=0.937, nesterov=True)),
    "AdamW": lambda m: torch.optim.AdamW(groups(m, lr=0.002, betas=(0.9, 0.999))),
    "Adam": lambda m: torch.optim.Adam(groups(m, lr=0.002, betas=(0.9, 0.999))),
    "RMSprop": lambda m: torch.optim.RMSprop(groups(m, lr=0.002, momentum=0.9)),
    "MuSGD": lambda m: MuSGD(groups(m, use_muon=True, lr=0.01, momentum=0.9, nesterov=True), muon=0.2, sgd=1.0),
}


def stock_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, max_norm: float | None
) -> None:
    """Do what ``BaseTrainer.optimizer_step`` of Ultralytics does, with a limit of one's own."""
    scaler.unscale_(optimizer)
    if max_norm is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=max_norm)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()


@pytest.mark.parametrize("scaled", [False, True], ids=["no-scaler", "scaler"])
@pytest.mark.parametrize("max_norm", [10.0, 0.1, None], ids=["max_norm=10", "max_norm=0.1", "no-clip"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_healthy_windows_are_applied_as_stock_does_bit_for_bit(
    optimizer: str, max_norm: float | None, scaled: bool
) -> None:
    stock, model = network(), network()
    theirs, ours = OPTIMIZERS[optimizer](stock), OPTIMIZERS[optimizer](model)
    # Stock has a scaler in any case, which is switched off without AMP.
    their_scaler = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=4, enabled=scaled)
    our_scaler = torch.amp.GradScaler("cpu", init_scale=65536.0, growth_interval=4, enabled=scaled)
    guard = StepGuard(model, ours, scaler=our_scaler if scaled else None, max_norm=max_norm, step="reference")

    generator = torch.Generator().manual_seed(13)
    for number in range(10):
        for _ in range(2):
            x = torch.randn(3, 2, 6, 6, generator=generator)
            target = torch.randn(3, 5, generator=generator) * (100.0 if number == 4 else 1.0)
            their_scaler.scale((stock(x) - target).square().mean()).backward()
            assert guard.backward((model(x) - target).square().mean())
        stock_step(stock, theirs, their_scaler, max_norm)
        decision = guard.step()
        assert decision, decision.reason
        assert_same(stock.state_dict(), model.state_dict())
        assert_same(theirs.state_dict(), ours.state_dict())
        assert_same(their_scaler.state_dict(), our_scaler.state_dict())
        assert all(p.grad is None for p in model.parameters())
    if scaled:
        assert our_scaler.get_scale() == 65536.0 * 4  # it grew twice
    assert guard.counts.clipped == {10.0: 1, 0.1: 10, None: 0}[max_norm]


@pytest.mark.parametrize("max_norm", [10.0, 0.1, None], ids=["max_norm=10", "max_norm=0.1", "no-clip"])
def test_random_gradients_of_any_size_are_applied_as_stock_does(max_norm: float | None) -> None:
    stock, model = network(), network()
    theirs, ours = OPTIMIZERS["SGD"](stock), OPTIMIZERS["SGD"](model)
    step = ReferenceStep(model, ours, None, GuardConfig(max_norm=max_norm))
    generator = torch.Generator().manual_seed(17)
    for exponent in range(-8, 9, 2):
        for p, q in zip(stock.parameters(), model.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator) * 10.0**exponent
            q.grad = p.grad.clone()
        stock_step(stock, theirs, torch.amp.GradScaler("cpu", enabled=False), max_norm)
        assert step.run().verdict in {GuardVerdict.APPLY, GuardVerdict.CLIP}
        assert_same(stock.state_dict(), model.state_dict())
        assert_same(theirs.state_dict(), ours.state_dict())


# ---- one parameter: f = p * x, so that the gradient is x, and SGD with lr 1 subtracts it --------------------------------


def line(start: float = 0.0) -> nn.Linear:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, start)
    return model


def sgd(model: nn.Module, lr: float = 1.0) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def loss_of(model: nn.Module, x: float) -> Tensor:
    return model(torch.full((1, 1), x)).sum()


def test_known_values_are_applied_clipped_and_rejected() -> None:
    model = line()
    guard = StepGuard(model, sgd(model))
    story = [  # gradient, verdict, norm, weight afterwards
        (3.0, GuardVerdict.APPLY, 3.0, -3.0),
        (-10.0, GuardVerdict.APPLY, 10.0, 7.0),
        (40.0, GuardVerdict.CLIP, 40.0, -3.0),
        (1e13, GuardVerdict.REJECT_WINDOW, 1e13, -3.0),
        (2.0, GuardVerdict.APPLY, 2.0, -5.0),
    ]
    for x, verdict, norm, weight in story:
        guard.backward(loss_of(model, x))
        decision = guard.step()
        assert (decision.verdict, decision.norm) == (verdict, pytest.approx(norm, rel=1e-6))
        assert model.weight.item() == pytest.approx(weight, rel=1e-6)
        assert model.weight.grad is None
        assert decision.loss is None


@pytest.mark.parametrize("x", [9.999999, 10.0, 10.000001], ids=str)
def test_at_the_very_limit_the_result_is_that_of_stock(x: float) -> None:
    """Stock divides by the norm plus 1e-6: a norm of exactly 10 is scaled down by one unit in the last place."""
    stock, model = line(), line()
    stock.weight.grad, model.weight.grad = torch.full((1, 1), x), torch.full((1, 1), x)
    stock_step(stock, sgd(stock), torch.amp.GradScaler("cpu", enabled=False), 10.0)
    ReferenceStep(model, sgd(model), None, GuardConfig()).run()
    assert torch.equal(stock.weight, model.weight)
    assert 9.99 < -model.weight.item() < 10.0


def test_the_norm_is_over_all_parameters_and_clips_all_alike() -> None:
    model = nn.Linear(2, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    step = ReferenceStep(model, sgd(model), None, GuardConfig(max_norm=1.0))
    model.weight.grad, model.bias.grad = torch.tensor([[2.0, 3.0]]), torch.tensor([6.0])
    decision = step.run()
    assert (decision.verdict, decision.norm) == (GuardVerdict.CLIP, 7.0)
    assert decision.reason == "gradient norm 7 clipped to 1"
    assert model.weight.tolist()[0] == pytest.approx([-2 / 7, -3 / 7], rel=1e-5)
    assert model.bias.item() == pytest.approx(-6 / 7, rel=1e-5)


def test_a_window_without_gradients_is_empty() -> None:
    model = line(5.0)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    guard = StepGuard(model, sgd(model), scaler=scaler)
    for _ in range(2):
        decision = guard.step()
        assert decision.verdict is GuardVerdict.EMPTY
        assert not decision
        assert not decision.rejected
        assert decision.norm is None
    assert model.weight.item() == 5.0
    assert scaler.get_scale() == 8.0
    guard.backward(loss_of(model, 1.0))
    assert guard.step()
    assert model.weight.item() == 4.0


def test_frozen_parameters_stay_as_they_are() -> None:
    model = nn.Sequential(line(2.0), line(3.0))
    next(model.parameters()).requires_grad_(False)
    guard = StepGuard(model, sgd(model))
    guard.backward(loss_of(model, 4.0))
    assert guard.step().norm == 8.0
    assert [p.item() for p in model.parameters()] == [2.0, -5.0]


@pytest.mark.parametrize("scaled", [False, True], ids=["no-scaler", "scaler"])
def test_a_bad_gradient_outside_the_optimizer_is_dropped(scaled: bool) -> None:
    """Stock's ``zero_grad`` would leave it where it is, and every later norm would be NaN."""
    model = nn.Sequential(line(1.0), line(1.0))
    optimizer = sgd(model[1])
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0) if scaled else None
    guard = StepGuard(model, optimizer, scaler=scaler, max_norm=None)
    guard.backward(loss_of(model, 3.0))
    outside = next(model.parameters())
    assert outside.grad is not None
    outside.grad.fill_(NAN)
    decision = guard.step()
    assert (decision.verdict, decision.culprits) == (GuardVerdict.REJECT_WINDOW, ("0.weight",))
    assert outside.grad is None
    assert [p.item() for p in model.parameters()] == [1.0, 1.0]
    guard.backward(loss_of(model, 3.0))
    assert guard.step()
    assert [p.item() for p in model.parameters()] == [1.0, -2.0]


def test_an_overflow_outside_the_optimizer_lowers_the_scale_as_well() -> None:
    """The scaler looks at the optimizer's parameters only: it would keep its scale, and every window would be rejected."""
    model = nn.Sequential(line(1.0), line(1.0))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=1)
    guard = StepGuard(model, sgd(model[1]), scaler=scaler)
    overflows = 0
    for _ in range(8):
        guard.backward(loss_of(model, 3.0))
        outside = next(model.parameters())
        assert outside.grad is not None
        if outside.grad.item() > 30_000.0:  # as float16 would
            outside.grad.fill_(INF)
            overflows += 1
            assert not guard.step()
        else:
            assert guard.step()
            break
    assert overflows == 3
    assert guard.counts.applied == 1


def test_a_parameter_that_only_the_optimizer_knows_is_judged_but_not_clipped() -> None:
    model, extra = line(), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([*model.parameters(), extra], lr=1.0)
    step = ReferenceStep(model, optimizer, None, GuardConfig(max_norm=5.0))
    assert [name for name, _ in step.named_parameters()] == ["weight", "optimizer.param_groups[0][1]"]

    model.weight.grad, extra.grad = torch.tensor([[6.0]]), torch.tensor([8.0])
    assert step.run().norm == 6.0
    assert (model.weight.item(), extra.item()) == (pytest.approx(-5.0), -8.0)

    model.weight.grad, extra.grad = torch.tensor([[6.0]]), torch.tensor([NAN])
    decision = step.run()
    assert (decision.verdict, decision.culprits) == (GuardVerdict.REJECT_WINDOW, ("optimizer.param_groups[0][1]",))
    assert extra.grad is None
    assert (model.weight.item(), extra.item()) == (pytest.approx(-5.0), -8.0)


def test_a_shared_parameter_counts_once() -> None:
    layer = line()
    model = nn.ModuleDict({"a": layer, "b": layer})
    step = ReferenceStep(model, sgd(model), None, GuardConfig())
    layer.weight.grad = torch.tensor([[3.0]])
    assert step.run().norm == 3.0


@pytest.mark.parametrize("wrong", [NAN, INF, -INF, 1e25], ids=["nan", "inf", "-inf", "square-overflows"])
def test_a_bad_gradient_leaves_weights_and_optimizer_as_they_were(wrong: float) -> None:
    model = network()
    optimizer = OPTIMIZERS["AdamW"](model)
    guard = StepGuard(model, optimizer)
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    guard.backward(model(x).square().mean())
    assert guard.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    guard.backward(model(x).square().mean())
    last = model[5].bias
    assert isinstance(last, nn.Parameter)
    assert last.grad is not None
    last.grad[-1] = wrong
    decision = guard.step()
    assert decision.verdict is GuardVerdict.REJECT_WINDOW
    assert decision.culprits == (() if wrong == 1e25 else ("5.bias",))
    assert decision.norm is not None
    assert not math.isfinite(decision.norm)
    assert_same(before, (model.state_dict(), optimizer.state_dict()))


# ---- the loss scale ------------------------------------------------------------------------------------------------------


def overflow(model: nn.Linear) -> None:
    """Put in what a float16 backward pass leaves when its loss scale is too high."""
    assert model.weight.grad is not None
    model.weight.grad.fill_(INF)


@pytest.mark.parametrize("min_scale", [2.0**-14, 1.0, 3.0], ids=str)
def test_an_overflow_backs_off_as_stock_does_down_to_the_floor(min_scale: float) -> None:
    """At the start and right after growth, where no window has shown that the scale can work."""
    stock, model = line(), line()
    theirs, ours = sgd(stock), sgd(model)
    their_scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=3)
    our_scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=3)
    guard = StepGuard(model, ours, scaler=our_scaler, min_scale=min_scale)
    bad = 0
    for wrong in [True, True, False, False, False, True, False, False, False, True, True, True]:
        their_scaler.scale(loss_of(stock, 1.0)).backward()
        guard.backward(loss_of(model, 1.0))
        if wrong:
            bad += 1
            overflow(stock)
            overflow(model)
        before = our_scaler.get_scale()
        stock_step(stock, theirs, their_scaler, 10.0)
        decision = guard.step()
        assert bool(decision) is not wrong
        expected = their_scaler.get_scale()
        if expected < min_scale:
            expected = min_scale
            their_scaler.update(new_scale=min_scale)
        assert our_scaler.get_scale() == expected
        assert our_scaler._get_growth_tracker() == their_scaler._get_growth_tracker()
        if wrong:
            assert decision.reason == f"gradient norm inf, loss scale {before:g} -> {expected:g}"
        assert model.weight.item() == stock.weight.item()
    assert guard.counts.rejected_windows == bad == 6
    if min_scale > 1.0:
        assert our_scaler.get_scale() == min_scale


def test_after_200_overflows_in_a_row_a_clean_window_is_applied_where_stock_writes_nan() -> None:
    stock, model = line(1.0), line(1.0)
    theirs, ours = sgd(stock, lr=0.5), sgd(model, lr=0.5)
    their_scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    our_scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    guard = StepGuard(model, ours, scaler=our_scaler, max_consecutive=200)
    for _ in range(200):
        their_scaler.scale(loss_of(stock, 1.0)).backward()
        overflow(stock)
        stock_step(stock, theirs, their_scaler, 10.0)
        guard.backward(loss_of(model, 1.0))
        overflow(model)
        assert not guard.step()
        assert our_scaler.get_scale() >= guard.config.min_scale
    assert guard.counts.rejected_windows == 200
    assert our_scaler.get_scale() == guard.config.min_scale
    assert their_scaler.get_scale() == 0.0

    their_scaler.scale(loss_of(stock, 1.0)).backward()
    stock_step(stock, theirs, their_scaler, 10.0)
    guard.backward(loss_of(model, 1.0))
    assert guard.step()
    assert math.isnan(stock.weight.item())
    assert model.weight.item() == 0.5


def first_bad_window_that_kills_stock() -> int:
    """Return after how many overflows in a row stock's next clean window writes something that is not finite."""
    scaler = torch.amp.GradScaler("cpu", init_scale=65536.0)
    model = line(1.0)
    scaler.scale(loss_of(model, 1.0)).backward()
    for number in range(1, 200):
        overflow(model)
        stock_step(model, sgd(model), scaler, 10.0)
        twin, twin_scaler = copy.deepcopy(model), copy.deepcopy(scaler)
        twin_scaler.scale(loss_of(twin, 1.0)).backward()
        stock_step(twin, sgd(twin), twin_scaler, 10.0)
        if not math.isfinite(twin.weight.item()):
            return number
        scaler.scale(loss_of(model, 1.0)).backward()
    raise AssertionError("stock lives")


def test_stock_dies_of_its_scale_before_it_is_zero() -> None:
    assert 144 <= first_bad_window_that_kills_stock() <= 166


@pytest.mark.parametrize("wrong", [NAN, INF, -INF], ids=str)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_loss_that_is_not_finite_says_nothing_about_the_scale(accumulate: int, wrong: float) -> None:
    model, twin = line(), line()
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=5)
    twin_scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=5)
    guard, twin_guard = (
        StepGuard(model, sgd(model), scaler=scaler),
        StepGuard(twin, sgd(twin), scaler=twin_scaler),
    )
    rejected = 0
    for number in range(12):
        for i in range(accumulate):
            if number % 2 and i == accumulate - 1:
                assert not guard.backward(loss_of(model, wrong))
                rejected += 1
            else:
                assert guard.backward(loss_of(model, 0.5))
                assert twin_guard.backward(loss_of(twin, 0.5))
        guard.step()
        twin_guard.step()
        assert_same(scaler.state_dict(), twin_scaler.state_dict())
        assert_same(model.state_dict(), twin.state_dict())
    assert guard.counts.rejected_micro_batches == rejected == 6
    assert scaler.get_scale() > 16.0


@pytest.mark.parametrize("x", [1e13, 1e25], ids=["above-reject_norm", "square-overflows"])
def test_an_absurd_norm_is_rejected_without_touching_the_scale(x: float) -> None:
    model = line()
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=3)
    guard = StepGuard(model, sgd(model), scaler=scaler)
    guard.backward(loss_of(model, 1.0))
    assert guard.step()
    before = scaler.state_dict()
    guard.backward(loss_of(model, x))
    decision = guard.step()
    assert decision.verdict is GuardVerdict.REJECT_WINDOW
    assert decision.culprits == ()
    assert "loss scale" not in decision.reason
    assert scaler.state_dict() == before
    guard.backward(loss_of(model, 2.0))  # the scaler's books were closed: it can unscale again
    assert guard.step().norm == 2.0
    assert model.weight.item() == -3.0


def test_a_scaler_that_is_switched_off_is_not_asked() -> None:
    model = line()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    guard = StepGuard(model, sgd(model), scaler=scaler)
    guard.backward(loss_of(model, 3.0))
    assert guard.step().norm == 3.0
    guard.backward(loss_of(model, 3.0))
    overflow(model)
    assert guard.step().reason == "gradient norm inf"
    assert scaler.state_dict() == {}
    assert model.weight.item() == -3.0


# ---- how often the host waits for the device ---------------------------------------------------------------------------


class HostReads(TorchDispatchMode):
    """Counts the operations that hand a number to Python; on the CPU, ``tolist`` reads without an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.scalars = self.lists = 0

    @property
    def count(self) -> int:
        return self.scalars + self.lists

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.scalars += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@contextmanager
def host_reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostReads]:
    tolist, reads = Tensor.tolist, HostReads()

    def counted(self: Tensor) -> Any:
        before = reads.scalars
        out = tolist(self)
        reads.lists += reads.scalars == before
        return out

    with monkeypatch.context() as patch, reads:
        patch.setattr(Tensor, "tolist", counted)
        yield reads


def test_the_counter_of_reads_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = torch.ones(()), torch.ones(2)
    with host_reads(monkeypatch) as reads:
        one.item()
        float(one)
        assert bool(one)
        two.tolist()
        one.tolist()
    assert reads.count == 5


@pytest.mark.parametrize("scaled", [False, True], ids=["no-scaler", "scaler"])
@pytest.mark.parametrize("batchnorm", [True, False], ids=["batchnorm", "no-batchnorm"])
@pytest.mark.parametrize("big", [False, True], ids=["apply", "clip"])
def test_a_healthy_window_costs_one_read_for_each_decision(
    scaled: bool, batchnorm: bool, big: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network()
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0, growth_interval=2) if scaled else None
    max_norm = 1e-3 if big else 1e6
    guard = StepGuard(model, OPTIMIZERS["SGD"](model), scaler=scaler, batchnorm=batchnorm, max_norm=max_norm)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        for _ in range(2):
            loss = model(torch.randn(3, 2, 6, 6, generator=generator)).square().mean()
            items = {"box": loss.detach() / 2, "cls": loss.detach() / 3, "number": 1.0}
            with host_reads(monkeypatch) as reads:
                assert guard.backward(loss, items)
            assert reads.count == 1
        with host_reads(monkeypatch) as reads:
            decision = guard.step()
        assert decision.verdict is (GuardVerdict.CLIP if big else GuardVerdict.APPLY)
        assert reads.count == 1


def test_a_rejection_may_read_more_but_the_next_window_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    guard = StepGuard(model, OPTIMIZERS["SGD"](model))
    x = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    assert not guard.backward(model(x * NAN).square().mean())
    guard.step()
    loss = model(x).square().mean()
    with host_reads(monkeypatch) as reads:
        assert guard.backward(loss)
        assert guard.step()
    assert reads.count == 2


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([torch.float32], torch.float32),
        ([torch.float16, torch.bool], torch.float32),
        ([torch.bfloat16, torch.int64], torch.float32),
        ([torch.float32, torch.float64], torch.float64),
    ],
    ids=["float32", "float16", "bfloat16", "float64"],
)
def test_scalars_of_any_dtype_make_one_vector(dtypes: list[torch.dtype], expected: torch.dtype) -> None:
    scalars = [
        torch.ones((1,) * i, dtype=dtype).requires_grad_(dtype.is_floating_point) for i, dtype in enumerate(dtypes)
    ]
    vector = to_device_vector(scalars, torch.device("cpu"))
    assert vector.dtype == expected
    assert vector.tolist() == [1.0] * len(dtypes)
    assert not vector.requires_grad


class Npu(Tensor):
    """A tensor that says that it lies on an NPU."""

    @property
    def device(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return SimpleNamespace(type="npu")


@pytest.mark.parametrize(("kind", "foreach"), [(Tensor, None), (Npu, False)])
def test_norms_on_an_npu_are_taken_without_foreach_kernels_which_it_lacks(
    monkeypatch: pytest.MonkeyPatch, kind: type[Tensor], foreach: bool | None
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(step, "get_total_norm", lambda *_, foreach: asked.append(foreach) or torch.tensor(math.nan))
    model = nn.Linear(2, 2)
    taken = ReferenceStep(model, torch.optim.SGD(model.parameters(), lr=0.1), None, GuardConfig())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter).as_subclass(kind)
    assert taken.run().verdict is GuardVerdict.REJECT_WINDOW
    assert asked == [foreach]
