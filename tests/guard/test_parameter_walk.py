"""Which parameters are clipped and which are stepped, as in stock, whatever becomes of model and optimizer.

Each story trains the same network twice on the same data: with what Ultralytics' ``optimizer_step`` does, and with a guard.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equality import assert_same
from torch import Tensor, nn
from ultralytics.optim import MuSGD

from yolo_stable.guard import GuardVerdict, StepGuard
from yolo_stable.guard.fused import FusedStep
from yolo_stable.guard.parameter_walk import ParameterWalk

NAN = float("nan")
MAX_NORM = 0.5
"""Low enough that nearly every window is clipped."""


class Network(nn.Module):
    """Five layers; a story may add one beside them, as ``extra``."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.SiLU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Rig:
    """A network, weights that only the loss knows, and an optimizer; what a story does to it, it does to both runs."""

    def __init__(self, maker: Maker, scaled: bool) -> None:
        torch.manual_seed(5)
        self.model: Any = Network()
        self.weights = nn.Parameter(torch.zeros(3))
        self.optimizer = maker(list(self.model.parameters()))
        self.scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3, enabled=scaled)

    def loss(self, x: Tensor) -> Tensor:
        parts = self.model(x).square().mean(0)
        extra = getattr(self.model, "extra", None)
        more = 0.0 if extra is None else extra(x[:, :3]).square().mean()
        return (parts * torch.exp(-self.weights.to(parts)) + self.weights.to(parts)).sum() * 10.0 + more

    def outside(self, *parameters: nn.Parameter, **settings: Any) -> None:
        self.optimizer.add_param_group({"params": list(parameters or [self.weights]), "lr": 0.002, **settings})

    def tensors(self) -> dict[str, Any]:
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        state = [self.optimizer.state.get(p, {}) for p in held]
        return {
            "model": dict(self.model.state_dict()),
            "weights": self.weights.detach().clone(),
            "state": [{k: v for k, v in s.items()} for s in state],
            "gradients": [p.grad for p in [*self.model.parameters(), self.weights]],
            "scale": self.scaler.state_dict(),
        }


def sgd(ps: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(ps, lr=0.02, momentum=0.9, nesterov=True)


def adamw(ps: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(ps, lr=0.01, weight_decay=0.01)


def rmsprop(ps: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(ps, lr=0.002, momentum=0.9)


def musgd(ps: list[nn.Parameter]) -> torch.optim.Optimizer:
    matrices = {"params": [p for p in ps if p.ndim == 2], "use_muon": True}
    rest = {"params": [p for p in ps if p.ndim != 2]}
    return MuSGD([matrices, rest], lr=0.01, momentum=0.9, nesterov=True, muon=0.2, sgd=1.0)


Maker = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Story = Callable[[Rig, int], None]


def from_the_start(rig: Rig, step: int) -> None:
    if step == 0:
        rig.outside()


def in_mid_run(rig: Rig, step: int) -> None:
    if step == 5:
        rig.outside()


def into_a_group_that_is_there(rig: Rig, step: int) -> None:
    if step == 2:
        rig.optimizer.param_groups[-1]["params"].append(rig.weights)


def among_the_models_own(rig: Rig, step: int) -> None:
    """A group of both kinds."""
    if step == 2:
        extra = nn.Linear(3, 2)
        nn.init.constant_(extra.weight, 0.5)
        nn.init.constant_(extra.bias, 0.5)
        rig.model.extra = extra
        rig.outside(*extra.parameters(), rig.weights)


def frozen_later(rig: Rig, step: int) -> None:
    if step == 0:
        rig.outside()
    rig.model.body[0].weight.requires_grad_(step < 3)
    rig.weights.requires_grad_(step != 4)


def thawed_later(rig: Rig, step: int) -> None:
    if step == 0:
        rig.outside()
    rig.model.body[2].requires_grad_(step >= 4)


def a_layer_that_the_optimizer_does_not_hold(rig: Rig, step: int) -> None:
    if step == 3:
        rig.model.extra = nn.Linear(3, 2)
        nn.init.constant_(rig.model.extra.weight, 0.5)
        nn.init.constant_(rig.model.extra.bias, 0.5)


def a_layer_exchanged(rig: Rig, step: int) -> None:
    """As many parameters of the same shapes as before; the optimizer still holds those of the old layer."""
    if step == 3:
        rig.model.body[2] = copy.deepcopy(rig.model.body[2])


def a_parameter_exchanged(rig: Rig, step: int) -> None:
    if step == 3:
        rig.model.body[2].bias = nn.Parameter(rig.model.body[2].bias.detach() * 2)


def taken_out_of_the_optimizer(rig: Rig, step: int) -> None:
    if step == 3:
        last = rig.optimizer.param_groups[-1]
        last["params"] = last["params"][:-1]


def held_twice(rig: Rig, step: int) -> None:
    if step == 3:
        first = rig.optimizer.param_groups[0]
        rig.optimizer.param_groups.append({**first, "params": [first["params"][0]]})


def of_another_dtype(rig: Rig, step: int) -> None:
    if step == 3:
        rig.weights = nn.Parameter(rig.weights.detach().double())
        rig.outside()


def only_the_outside_learns(rig: Rig, step: int) -> None:
    if step == 0:
        rig.outside()
    rig.model.requires_grad_(step < 3)


STORIES: dict[str, Story] = {
    story.__name__: story
    for story in (
        from_the_start,
        in_mid_run,
        into_a_group_that_is_there,
        among_the_models_own,
        frozen_later,
        thawed_later,
        a_layer_that_the_optimizer_does_not_hold,
        a_layer_exchanged,
        a_parameter_exchanged,
        taken_out_of_the_optimizer,
        held_twice,
        of_another_dtype,
        only_the_outside_learns,
    )
}
MAKERS = {"SGD": sgd, "AdamW": adamw, "MuSGD": musgd, "RMSprop": rmsprop}


def stock(rig: Rig) -> None:
    rig.scaler.unscale_(rig.optimizer)
    torch.nn.utils.clip_grad_norm_(rig.model.parameters(), max_norm=MAX_NORM)
    rig.scaler.step(rig.optimizer)
    rig.scaler.update()
    rig.optimizer.zero_grad()


def gradient(p: Any) -> Tensor:
    assert isinstance(p.grad, Tensor)
    return p.grad


def guarded(rig: Rig, way: str) -> StepGuard:
    step = "reference" if way in {"reference", "auto"} or isinstance(rig.optimizer, torch.optim.RMSprop) else "fused"
    config = {"max_norm": MAX_NORM, "step": "auto" if way == "auto" else step}
    guard = StepGuard(rig.model, rig.optimizer, scaler=rig.scaler, **config)
    if way == "device" and step == "fused":
        guard._step = FusedStep(rig.model, rig.optimizer, rig.scaler, guard.config, on_device=True)
    return guard


def close(a: Any, b: Any, allowed: float) -> None:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            close(a[key], b[key], allowed)
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            close(x, y, allowed)
    elif isinstance(a, Tensor):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        worst = float((a.double() - b.double()).abs().max())
        assert worst <= allowed * max(1.0, float(a.double().abs().max())), worst
    else:
        assert a == b


WAYS = ("reference", "host", "device")
TRIED = [
    *((story, "SGD", way, scaled) for story in STORIES for way in WAYS for scaled in (False, True)),
    *((story, "AdamW", way, False) for story in STORIES for way in ("reference", "device")),
    *(("in_mid_run", kind, way, scaled) for kind in ("MuSGD", "RMSprop") for way in WAYS for scaled in (False, True)),
    ("in_mid_run", "AdamW", "device", True),
]


@pytest.mark.parametrize(("story", "optimizer", "way", "scaled"), TRIED)
def test_what_is_clipped_and_what_is_stepped_is_as_in_stock(story: str, optimizer: str, way: str, scaled: bool) -> None:
    theirs, ours = Rig(MAKERS[optimizer], scaled), Rig(MAKERS[optimizer], scaled)
    guard = guarded(ours, way)
    data = torch.Generator().manual_seed(3)
    clipped = 0
    for step in range(8):
        batches = [torch.randn(4, 6, generator=data) for _ in range(2)]
        for rig in (theirs, ours):
            STORIES[story](rig, step)
        for x in batches:
            theirs.scaler.scale(theirs.loss(x)).backward()
            assert guard.backward(ours.loss(x))
        stock(theirs)
        decision = guard.step()
        assert decision, decision.reason
        clipped += decision.verdict is GuardVerdict.CLIP
        if way == "reference" or optimizer == "RMSprop":
            assert_same(theirs.tensors(), ours.tensors())
    assert clipped >= 3
    # MuSGD: Newton-Schulz in bfloat16 makes 1e-5 of a last place.
    close(theirs.tensors(), ours.tensors(), 1e-6 if optimizer != "MuSGD" or way == "host" else 1e-4)


@pytest.mark.parametrize("way", ["reference", "host", "device"])
def test_an_optimizer_with_fewer_parameters_is_put_in_as_in_stock(way: str) -> None:
    """A callback that from here on trains the last layer only: what is left over adds up, in the norm as well."""
    theirs, ours = Rig(sgd, scaled=False), Rig(sgd, scaled=False)
    guard = guarded(ours, "reference" if way == "reference" else "auto")
    data = torch.Generator().manual_seed(3)
    norms = []
    for step in range(6):
        x = torch.randn(4, 6, generator=data)
        if step == 2:
            for rig in (theirs, ours):
                rig.optimizer = sgd(list(rig.model.body[4].parameters()))
            guard.optimizer = ours.optimizer
            if way == "device":
                guard._step = FusedStep(ours.model, ours.optimizer, ours.scaler, guard.config, on_device=True)
        theirs.loss(x).backward()
        assert guard.backward(ours.loss(x))
        stock(theirs)
        norms.append(guard.step().norm)
        close(theirs.tensors(), ours.tensors(), 0.0 if way == "reference" else 1e-6)
    assert ours.model.body[0].weight.grad is not None, "stock zeroes what the optimizer holds"


# ---- a bad window ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaled", [False, True], ids=["no-scaler", "scaler"])
@pytest.mark.parametrize("value", [NAN, 1e30])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
def test_a_bad_gradient_outside_the_model_rejects_the_window(
    optimizer: str, way: str, value: float, scaled: bool
) -> None:
    """1e30 is finite, its square is not; scaled or not, it must not reach the parameter."""
    rig = Rig(MAKERS[optimizer], scaled)
    rig.outside()
    guard = guarded(rig, way)
    data = torch.Generator().manual_seed(3)
    for number in range(4):
        guard.backward(rig.loss(torch.randn(4, 6, generator=data)))
        if number == 2:
            assert rig.weights.grad is not None
            rig.weights.grad[1] = value
            before = copy.deepcopy((rig.model.state_dict(), rig.optimizer.state_dict(), rig.weights))
            decision = guard.step()
            assert decision.verdict is GuardVerdict.REJECT_WINDOW
            last = len(rig.optimizer.param_groups) - 1
            assert decision.culprits == (() if value == 1e30 else (f"optimizer.param_groups[{last}][0]",))
            assert_same(before, (rig.model.state_dict(), rig.optimizer.state_dict(), rig.weights))
            assert rig.weights.grad is None
        else:
            assert guard.step()
    assert guard.counts.rejected_windows == 1


@pytest.mark.parametrize("way", ["reference", "host", "device"])
def test_a_rejected_window_leaves_a_stray_what_it_had_when_the_window_began(way: str) -> None:
    def run(bad_at: int | None) -> tuple[Rig, StepGuard]:
        rig = Rig(sgd, scaled=False)
        rig.outside()
        guard = guarded(rig, way)
        rig.model.extra = nn.Linear(3, 2)
        nn.init.constant_(rig.model.extra.weight, 0.5)
        nn.init.constant_(rig.model.extra.bias, 0.5)
        data = torch.Generator().manual_seed(3)
        for number in range(5):
            x = torch.randn(4, 6, generator=data)
            if bad_at is None and number == 3:
                continue  # the twin never drew it
            guard.backward(rig.loss(x))
            if number == bad_at:
                gradient(rig.model.extra.bias)[0] = NAN
            guard.step()
        return rig, guard

    (faulty, guard), (twin, _) = run(3), run(None)
    assert guard.counts.rejected_windows == 1
    assert faulty.model.extra.bias.grad is not None
    assert_same(twin.tensors(), faulty.tensors())


def test_a_window_that_is_abandoned_leaves_a_stray_what_it_had() -> None:
    rig = Rig(sgd, scaled=False)
    guard = guarded(rig, "reference")
    rig.model.extra = nn.Linear(3, 2)
    x = torch.ones(4, 6)
    guard.backward(rig.loss(x))
    assert guard.step()
    before = gradient(rig.model.extra.bias).clone()
    guard.backward(rig.loss(x))
    assert not torch.equal(gradient(rig.model.extra.bias), before)
    guard.abandon_window()
    assert torch.equal(gradient(rig.model.extra.bias), before)


# ---- the walk -------------------------------------------------------------------------------------------------------------


def test_a_walk_is_current_until_a_parameter_or_a_module_is_another() -> None:
    def begun(rig: Rig) -> ParameterWalk:
        walk = ParameterWalk()
        assert not walk.is_current(rig.optimizer)
        walk.begin(rig.model, rig.optimizer)
        return walk

    for name, story in STORIES.items():
        if name in {"frozen_later", "thawed_later", "only_the_outside_learns"}:
            continue  # the parameters stay the same
        rig = Rig(sgd, scaled=False)
        walk = begun(rig)
        assert walk.is_current(rig.optimizer)
        for step in range(6):
            story(rig, step)
        assert not walk.is_current(rig.optimizer), name

    rig = Rig(sgd, scaled=False)
    walk = begun(rig)
    rig.model.body[1].register_parameter("slope", nn.Parameter(torch.ones(1)))  # a module that had none
    assert not walk.is_current(rig.optimizer)
    walk = begun(rig)
    del rig.model.body[1].slope
    assert not walk.is_current(rig.optimizer)
    walk = begun(rig)
    assert not walk.is_current(sgd(list(rig.model.parameters())))


def test_the_norms_of_modules_are_of_what_is_clipped() -> None:
    rig = Rig(sgd, scaled=False)
    rig.outside()
    for way in ("reference", "host", "device"):
        guard = guarded(rig, way)
        guard.backward(rig.loss(torch.ones(4, 6)))
        layers = dict(guard.step(measure=True).layers)
        assert set(layers) == {"body.0", "body.2", "body.4"}
        assert sum(layers.values()) == pytest.approx(1.0)
