"""Where the loss scale goes: as in torch while nothing is known, and back to what worked when scaling was not the cause."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equality import assert_same
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import Decision, GuardConfig, StepGuard
from yolo_stable.guard.fused import FusedStep
from yolo_stable.guard.loss_scale import LARGEST_DROP, TRIES, LossScale
from yolo_stable.guard.step import ReferenceStep

NAN, INF = math.nan, math.inf
BIG = 65536.0
LIMIT = 65504.0
"""The largest number of float16: a scaled gradient above it is infinite."""


class Loop:
    """One weight, its scaler, and a step; what a float16 backward pass would leave is put in as the gradient."""

    def __init__(self, way: str = "reference", scale: float = BIG, interval: int = 2000, **settings: Any) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.model.weight, 1.0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.25)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=interval)
        config = GuardConfig(max_norm=None, **settings)
        self.step: ReferenceStep | None = None
        if way == "reference":
            self.step = ReferenceStep(self.model, self.optimizer, self.scaler, config)
        elif way != "stock":
            self.step = FusedStep(self.model, self.optimizer, self.scaler, config, on_device=way == "device")
        self.rejections = 0

    def window(self, gradient: float) -> Decision | None:
        """Take one window with this true gradient; beyond float16 when scaled, it is infinite."""
        scaled = float(self.scaler.scale(torch.tensor(gradient)))
        self.model.weight.grad = torch.full((1, 1), scaled if abs(scaled) <= LIMIT else scaled * INF)
        bad = not math.isfinite(self.model.weight.grad.item())
        self.rejections += bad
        if self.step is None:
            self.scaler.unscale_(self.optimizer)
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return None
        decision = self.step.run()
        assert decision.rejected is bad, "the injected fault did not fire, or something else did"
        return decision

    def windows(self, gradient: float, count: int) -> None:
        for _ in range(count):
            self.window(gradient)

    @property
    def scale(self) -> float:
        return self.scaler.get_scale()

    @property
    def weight(self) -> float:
        return self.model.weight.item()


every_way = pytest.mark.parametrize("way", ["reference", "host", "device"])


# ---- not caused by scaling -----------------------------------------------------------------------------------------------


def test_after_any_number_of_bad_windows_one_clean_one_restores_the_scale() -> None:
    """What a bad window finds at the floor of the scale it leaves as it was, all of it: a thousand are as a hundred thousand."""
    loop = Loop()
    loop.windows(0.5, 3)
    weight = loop.model.weight.detach().clone()
    assert loop.step is not None
    states = []
    for _ in range(1000):
        loop.model.weight.grad = torch.full((1, 1), NAN)
        assert loop.step.run().rejected
        states.append([each.state_dict() for each in (loop.scaler, loop.step.loss_scale, loop.optimizer)])
        states[-1].append({name: repr(value) for name, value in vars(loop.step).items()})
    assert torch.equal(loop.model.weight, weight)
    assert loop.scale == 2.0**-14
    for state in states[30:]:
        assert state == states[29], "it counts"
    assert states[28] != states[29], "the scale was on its way"
    decision = loop.window(0.5)
    assert decision
    assert decision.reason == ""
    assert loop.scale == BIG
    assert loop.weight == weight.item() - 0.125
    for _ in range(5):
        before = loop.weight
        assert loop.window(0.5)
        assert (loop.weight, loop.scale) == (before - 0.125, BIG)


def stock_after(bad: int) -> float:
    """Return stock's weight when a clean window follows ``bad`` ones."""
    stock = Loop("stock")
    stock.windows(0.5, 3)
    stock.windows(NAN, bad)
    assert stock.rejections == bad
    assert stock.weight == 0.625  # not yet: the skip works, the next window is the one
    stock.window(0.5)
    return stock.weight


def test_stock_is_dead_after_144() -> None:
    """Its scale is 2^-128 then, of which the reciprocal is infinite in float32: the check is passed, and inf is applied."""
    assert [bad for bad in range(130, 170) if not math.isfinite(stock_after(bad))] == list(range(144, 170))


@every_way
@pytest.mark.parametrize("bad", [1, 2, 5, 60])
def test_a_streak_of_any_length_is_made_up_for_by_one_clean_window(way: str, bad: int) -> None:
    loop = Loop(way)
    loop.windows(0.5, 3)
    loop.windows(NAN, bad)
    assert loop.scale == max(BIG * 0.5**bad, 2.0**-14)
    loop.window(0.5)
    assert loop.scale == BIG
    assert loop.scaler._get_growth_tracker() == 1  # one clean window in a row: it has not jumped
    assert loop.rejections == bad


@every_way
@pytest.mark.parametrize("every", [3, 7, 40])
def test_bad_windows_that_keep_coming_do_not_wear_the_scale_down(way: str, every: int) -> None:
    """Stock halves each time, down to zero; here the scale stays near the proven one, and is seen at it again."""
    loop, stock = Loop(way), Loop("stock")
    seen = []
    for number in range(1, 1201):
        for each in (loop, stock):
            each.window(NAN if number % every == 0 else 2.0**-10)
        seen.append(loop.scale)
    assert loop.rejections == stock.rejections == 1200 // every
    assert min(seen) == BIG * 0.5 ** (TRIES + 1)
    assert BIG in seen[-(TRIES + 1) * every :]
    assert stock.scale <= BIG * 0.5**30


@every_way
def test_every_second_window_bad_after_a_long_streak_does_not_leave_the_scale_at_the_floor(way: str) -> None:
    loop = Loop(way)
    loop.windows(2.0**-10, 3)
    loop.windows(NAN, 100)
    assert loop.scale == 2.0**-14
    loop.window(2.0**-10)
    assert loop.scale == BIG
    reason = getattr(loop.window(NAN), "reason", "")
    assert reason == "gradient norm nan, loss scale 65536 -> 256"
    loop.window(2.0**-10)
    assert loop.scale == BIG * LARGEST_DROP == 256.0


# ---- caused by scaling ---------------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("gradient", [3.0, 100.0, 40_000.0], ids=str)
def test_finding_the_scale_at_the_start_is_torchs_trajectory_and_so_is_growth(way: str, gradient: float) -> None:
    """Overflows from the first window on, then growth until it overflows again, over and over."""
    loop, stock = Loop(way, interval=5), Loop("stock", interval=5)
    weights = set()
    for _ in range(200):
        loop.window(gradient)
        stock.window(gradient)
        assert loop.scaler.state_dict() == stock.scaler.state_dict()
        assert loop.weight == stock.weight
        weights.add(loop.weight)
    assert loop.rejections == stock.rejections > 20
    assert len(weights) > 100


@every_way
@pytest.mark.parametrize("halvings", range(1, 9))
def test_a_proven_scale_that_no_longer_works_costs_one_window_more_than_stock(way: str, halvings: int) -> None:
    """The gradients have grown for good. What is refuted is not tried again until torch's growth gets there."""
    loop, stock = Loop(way, interval=50), Loop("stock", interval=50)
    for each in (loop, stock):
        each.windows(0.5, 3)
        each.windows(0.75 * 2.0**halvings, halvings + 1)
    assert stock.scale == BIG * 0.5**halvings
    assert loop.scale == BIG, "the first applied window has put the proven scale back"
    before = loop.rejections
    assert before == stock.rejections == halvings
    decision = loop.window(0.75 * 2.0**halvings)
    assert decision is not None
    assert decision.reason == f"gradient norm inf, loss scale 65536 -> {stock.scale:g}"
    for _ in range(49):
        loop.window(0.75 * 2.0**halvings)
        assert loop.scale == stock.scale
    assert loop.rejections == stock.rejections + 1
    for each in (loop, stock):
        each.windows(0.75 * 2.0**halvings, 500)
    assert abs(loop.rejections - stock.rejections) <= 2  # growth overflows at the same rate, a few windows apart
    assert loop.scale in {stock.scale, 2 * stock.scale, 0.5 * stock.scale}


@every_way
def test_a_scale_that_overflows_now_and_then_is_given_up_as_in_torch(way: str) -> None:
    """One batch of twenty is too large for the scale that growth has reached; to insist on it would lose all of them."""
    loop, stock = Loop(way, interval=500), Loop("stock", interval=500)
    for number in range(1, 2001):
        for each in (loop, stock):
            each.window(1.5 if number % 20 == 0 else 0.5)  # 1.5 x 65536 is too much, 1.5 x 32768 is not
    assert 3 <= stock.rejections <= 4
    assert stock.rejections < loop.rejections <= 2 * stock.rejections


# ---- the same for every step ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_all_steps_take_the_scale_the_same_way(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    loops = [Loop(way, interval=7) for way in ("reference", "host", "device")]
    scales = set()
    for _ in range(400):
        kind, size = torch.rand(2, generator=generator).tolist()
        gradient = NAN if kind < 0.15 else 1e13 if kind < 0.2 else 2.0 ** (size * 8 - 4)
        reference, *others = (loop.window(gradient) for loop in loops)
        assert reference is not None
        for loop, decision in zip(loops[1:], others, strict=True):
            assert decision is not None
            assert (decision.verdict, decision.reason) == (reference.verdict, reference.reason)
            assert loop.scaler.state_dict() == loops[0].scaler.state_dict()
            assert loop.step is not None
            assert loops[0].step is not None
            assert loop.step.loss_scale.state_dict() == loops[0].step.loss_scale.state_dict()
        scales.add(loops[0].scale)
    assert loops[0].rejections > 50
    assert len(scales) > 5


class Operations(TorchDispatchMode):
    """Counts what is read and what is carried out."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = self.all = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.all += 1
        self.reads += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


@every_way
def test_a_healthy_window_costs_nothing(way: str) -> None:
    """After a streak, at the restored scale and later, the operations are those of a scaler that is merely updated."""

    class Plain(LossScale):
        def applied(self, scaler: torch.amp.GradScaler) -> None:
            scaler.update()

    ours, plain = Loop(way), Loop(way)
    for loop in (ours, plain):
        loop.windows(0.5, 2)
        loop.window(NAN)
        loop.window(0.5)
    assert plain.step is not None
    plain.step.loss_scale = Plain(1.0)
    for _ in range(5):
        counts = []
        for loop in (ours, plain):
            loop.model.weight.grad = torch.full((1, 1), 0.5 * loop.scale)
            assert loop.step is not None
            with Operations() as counted:
                assert loop.step.run()
            counts.append((counted.reads, counted.all))
        assert counts[0] == counts[1]
        assert counts[0][0] == (
            way == "reference"
        )  # the fused step reads its norm by tolist(), which is no operation here


# ---- someone else's hands ------------------------------------------------------------------------------------------------


def test_another_scaler_begins_anew_and_the_same_one_does_not() -> None:
    loop = Loop()
    assert loop.step is not None
    loop.windows(0.5, 3)
    loop.windows(NAN, 4)
    loop.step.scaler = loop.scaler
    kept = loop.step.loss_scale
    assert kept.state_dict()["goal"] == BIG
    loop.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    loop.step.scaler = loop.scaler
    assert loop.step.loss_scale is not kept
    loop.windows(NAN, 2)
    loop.window(0.5)
    assert loop.scale == 32.0, "nothing was proven for this one"


@pytest.mark.parametrize("loaded", [8.0, 2.0**40], ids=str)
@pytest.mark.parametrize("moment", ["streak", "probation", "calm"])
def test_a_scale_that_someone_else_has_set_is_not_replaced(moment: str, loaded: float) -> None:
    loop = Loop()
    loop.windows(2.0**-30, 3)
    if moment != "calm":
        loop.windows(NAN, 4)
    if moment == "probation":
        loop.window(2.0**-30)
    loop.scaler.load_state_dict({**loop.scaler.state_dict(), "scale": loaded, "_growth_tracker": 0})
    twin = Loop("stock")
    twin.window(0.0)
    twin.scaler.load_state_dict(loop.scaler.state_dict())
    for gradient in (NAN, NAN, 2.0**-30, 2.0**-30):
        loop.window(gradient)
        twin.window(gradient)
        assert loop.scale == twin.scale
    assert loop.scale == loaded / 4


def test_a_loaded_scale_in_a_streak_stays_when_the_next_window_is_clean() -> None:
    loop = Loop()
    loop.windows(0.5, 3)
    loop.windows(NAN, 4)
    loop.scaler.load_state_dict({**loop.scaler.state_dict(), "scale": 8.0})
    loop.window(0.5)
    assert loop.scale == 8.0


@pytest.mark.parametrize("floor", [1, 0.1, 3.0], ids=str)
def test_a_floor_of_any_kind_is_kept_and_left(floor: float) -> None:
    """A whole number, one that float32 does not have, one that is no power of two."""
    loop = Loop(min_scale=floor)
    loop.windows(0.5, 3)
    loop.windows(NAN, 40)
    assert loop.scale == pytest.approx(floor)
    loop.window(0.5)
    assert loop.scale == BIG


def test_the_state_goes_through_json_and_continues_in_the_middle_of_a_streak() -> None:
    loop = Loop()
    loop.windows(0.5, 3)
    loop.windows(NAN, 4)
    assert loop.step is not None
    saved = json.loads(json.dumps([loop.scaler.state_dict(), loop.step.loss_scale.state_dict()]))
    resumed, forgetful = Loop(), Loop()
    for each in (resumed, forgetful):
        each.scaler.load_state_dict(saved[0])
    assert resumed.step is not None
    resumed.step.loss_scale.load_state_dict(saved[1])
    for each in (loop, resumed, forgetful):
        each.window(0.5)
    assert loop.scale == resumed.scale == BIG
    assert forgetful.scale == BIG / 16
    assert resumed.step.loss_scale.state_dict() == loop.step.loss_scale.state_dict()


FRESH = LossScale(1.0).state_dict()


@pytest.mark.parametrize(
    "state",
    [
        None,
        {},
        {"top": 1.0},
        {**FRESH, "more": 1},
        {**FRESH, "top": NAN},
        {**FRESH, "left": -1.0},
        {**FRESH, "goal": "8"},
        {**FRESH, "top": INF},
        {**FRESH, "streak": True},
        {**FRESH, "tries": 1.5},
    ],
    ids=str,
)
def test_a_damaged_state_is_refused(state: Any) -> None:
    made = LossScale(1.0)
    with pytest.raises(InvalidCallError, match=r"^This is not the state of a loss scale: .* named top, goal, "):
        made.load_state_dict(state)
    assert made.state_dict() == FRESH


def test_the_guard_saves_it_and_keeps_it_when_the_optimizer_is_exchanged() -> None:
    def guarded() -> tuple[nn.Linear, torch.amp.GradScaler, StepGuard]:
        model = nn.Linear(1, 1, bias=False)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        return model, scaler, StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1), scaler=scaler)

    def window(model: nn.Linear, guard: StepGuard, bad: bool = False) -> None:
        assert guard.backward(model(torch.ones(1, 1)).sum())
        assert model.weight.grad is not None
        if bad:
            model.weight.grad.fill_(INF)
        assert bool(guard.step()) is not bad

    model, scaler, guard = guarded()
    window(model, guard)
    for _ in range(3):
        window(model, guard, bad=True)
    assert scaler.get_scale() == 32.0
    twin, twin_scaler, twin_guard = guarded()
    twin_scaler.load_state_dict(scaler.state_dict())
    twin_guard.load_state_dict(copy.deepcopy(guard.state_dict()))
    guard.optimizer = torch.optim.AdamW(model.parameters())
    window(model, guard)
    window(twin, twin_guard)
    assert scaler.get_scale() == twin_scaler.get_scale() == 256.0
    before = guard.state_dict()
    with pytest.raises(InvalidCallError, match="not the state of a loss scale"):
        guard.load_state_dict({"counts": twin_guard.state_dict()["counts"], "loss_scale": {"top": 1}})
    assert_same(before, guard.state_dict())


# ---- real float16 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["reference", "fused"])
def test_in_real_float16_the_scale_is_found_and_a_bad_streak_is_made_up_for(step: str) -> None:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 1))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24)
    guard = StepGuard(
        model, torch.optim.SGD(model.parameters(), lr=0.05), scaler=scaler, step=step, max_consecutive=200
    )
    x = torch.randn(64, 8)
    target = x.sum(1, keepdim=True)

    def window(spoil: Callable[[Tensor], Tensor] = lambda loss: loss) -> tuple[float, bool]:
        with torch.autocast("cpu", dtype=torch.float16):
            out = model(x)
            assert out.dtype is torch.float16
        loss = (spoil(out).float() - target).square().mean()
        assert guard.backward(loss)
        return float(loss.detach()), bool(guard.step())

    def spoiled(out: Tensor) -> Tensor:
        out.register_hook(lambda gradient: gradient * NAN)  # a finite loss with a broken derivative
        return out

    first, applied = window()
    assert not applied, "2^24 is too much for float16"
    while not applied:
        _, applied = window()
    found = scaler.get_scale()
    assert 1.0 < found < 2.0**24
    for _ in range(20):
        assert window()[1]
    assert scaler.get_scale() == found
    before = copy.deepcopy(model.state_dict())
    for _ in range(150):
        assert not window(spoiled)[1]
    assert_same(before, model.state_dict())
    assert scaler.get_scale() == guard.config.min_scale
    assert window()[1]
    assert scaler.get_scale() == found
    assert all(window()[1] for _ in range(100))
    assert window()[0] < 0.2 * first
    assert scaler.get_scale() == found
