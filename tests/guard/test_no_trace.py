"""Contract 2: after a rejection everything is, bit for bit, as in a run that never drew the batch.

Each story trains a small network with BatchNorm for six windows and puts one fault into one micro-batch. Its twin is the
same run without that micro-batch (input and loss faults) or without its window (faults that only show in the gradients).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from equality import assert_same
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from ultralytics.optim import MuSGD

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import GuardVerdict, StepGuard
from yolo_stable.guard.fused import FusedStep

WINDOWS = 6
VALUES = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf"), "overflow": 1e25}
AT = {"first": (0, 0), "early": (1, 0), "late": (5, -1)}  # (window, micro-batch in it)


def network() -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.SiLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
        nn.Flatten(),
        nn.Linear(16, 1),
    )


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=5e-4)


def musgd(model: nn.Module) -> torch.optim.Optimizer:
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    shared = {"lr": 0.01, "momentum": 0.9, "nesterov": True}
    groups = [{"params": matrices, "use_muon": True, "weight_decay": 5e-4, **shared}, {"params": others, **shared}]
    return MuSGD(groups, muon=0.2, sgd=1.0)


@dataclass
class Run:
    """A training run: model, optimizer, EMA and the mean of the losses that counted."""

    optimizer_of: Callable[[nn.Module], torch.optim.Optimizer]
    scaled: bool = False
    way: str = "reference"

    def __post_init__(self) -> None:
        self.model = network()
        self.optimizer = self.optimizer_of(self.model)
        self.ema = AveragedModel(self.model, use_buffers=True)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3) if self.scaled else None
        self.guard = StepGuard(
            self.model, self.optimizer, scaler=self.scaler, step="fused" if self.way == "device" else self.way
        )
        if self.way == "device":  # as on an accelerator, where the device decides
            self.guard._step = FusedStep(self.model, self.optimizer, self.scaler, self.guard.config, on_device=True)
        self.losses: list[float] = []
        self.rejections: list[GuardVerdict] = []

    def micro_batch(self, x: Tensor, place: str = "", value: float = 0.0) -> None:
        if place == "input":
            x = x.clone()
            x[0, 0, 2, 2] = value
        loss = self.model(x).square().mean()
        if place == "loss":
            loss = loss * value
        decision = self.guard.backward(loss, {"square": loss})
        if decision:
            self.losses.append(decision.items["square"])
        else:
            self.rejections.append(decision.verdict)
        if place == "gradient":
            gradient = next(self.model.parameters()).grad
            assert gradient is not None
            gradient[0, 0, 0, 0] = value

    def step(self, losses_before: list[float]) -> None:
        decision = self.guard.step()
        if decision:
            self.ema.update_parameters(self.model)
        elif decision.rejected:
            self.rejections.append(decision.verdict)
            self.losses = losses_before

    def state(self) -> dict[str, object]:
        return {
            "model": self.model.state_dict(),
            "gradients": [p.grad for p in self.model.parameters()],
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "losses": self.losses,
            "applied": self.guard.counts.applied,
        }


def batches(accumulate: int) -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(11)
    return [[torch.randn(4, 1, 6, 6, generator=generator) for _ in range(accumulate)] for _ in range(WINDOWS)]


def train(run: Run, windows: list[list[Tensor]], fault: tuple[int, int, str, float] | None = None) -> Run:
    for w, window in enumerate(windows):
        before = list(run.losses)
        for m, x in enumerate(window):
            if fault is not None and (w, m) == fault[:2]:
                run.micro_batch(x, place=fault[2], value=fault[3])
            else:
                run.micro_batch(x)
        run.step(before)
    return run


@pytest.mark.parametrize("way", ["reference", "fused", "device"])
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("optimizer", [sgd, adamw, musgd], ids=["SGD", "AdamW", "MuSGD"])
@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("place", ["input", "loss", "gradient"])
@pytest.mark.parametrize("kind", VALUES)
def test_a_rejection_leaves_no_trace(
    kind: str, place: str, at: str, optimizer: Callable[[nn.Module], torch.optim.Optimizer], accumulate: int, way: str
) -> None:
    window, micro_batch = AT[at][0], AT[at][1] % accumulate
    windows = batches(accumulate)
    faulty = train(Run(optimizer, way=way), windows, (window, micro_batch, place, VALUES[kind]))

    # A loss of 1e25 is finite, and so is a gradient of 1e25: both show when the window's norm overflows.
    seen_before_backward = place == "input" or (place == "loss" and kind != "overflow")
    assert faulty.rejections[0] is (
        GuardVerdict.REJECT_MICRO_BATCH if seen_before_backward else GuardVerdict.REJECT_WINDOW
    )
    assert len(faulty.rejections) == 1
    twin_windows = copy.copy(windows)
    if seen_before_backward:
        twin_windows[window] = [x for m, x in enumerate(windows[window]) if m != micro_batch]
    else:
        twin_windows[window] = []
    twin = train(Run(optimizer, way=way), twin_windows)
    assert twin.rejections == []
    assert_same(faulty.state(), twin.state())


@pytest.mark.parametrize("place", ["input", "loss"])
@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("way", ["reference", "fused", "device"])
def test_a_rejected_loss_leaves_no_trace_in_the_loss_scale(at: str, kind: str, place: str, way: str) -> None:
    window = AT[at][0]
    windows = batches(1)
    faulty = train(Run(sgd, scaled=True, way=way), windows, (window, 0, place, VALUES[kind]))
    assert faulty.rejections == [GuardVerdict.REJECT_MICRO_BATCH]
    twin = train(Run(sgd, scaled=True, way=way), [w if i != window else [] for i, w in enumerate(windows)])
    assert_same(faulty.state(), twin.state())
    assert faulty.scaler is not None
    assert faulty.scaler.get_scale() > 1024.0, "the scale grew as if nothing had happened"


def test_an_overflowing_activation_has_no_nan_but_ruins_the_variance() -> None:
    """The reason why BatchNorm's buffers are looked at: everything else is finite."""
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    x = torch.tensor([[1e25], [-1e25]])
    loss = model(x).square().mean()
    loss.backward()
    assert bool(loss.isfinite())
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
    assert model.state_dict()["0.running_var"].item() == float("inf")

    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1))
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=1.0))
    decision = guard.backward(model(x).square().mean())
    assert decision.verdict is GuardVerdict.REJECT_MICRO_BATCH
    assert decision.reason == "running statistics of BatchNorm not finite"
    assert decision.culprits == ("0.running_var",)
    state = model.state_dict()
    assert (state["0.running_mean"], state["0.running_var"], state["0.num_batches_tracked"]) == (0.0, 1.0, 0)


def test_the_whole_window_of_bad_micro_batches_is_no_step() -> None:
    run = Run(adamw)
    before = copy.deepcopy(run.state())
    for x in batches(4)[0]:
        run.micro_batch(x, "input", float("nan"))
    run.step([])
    assert run.guard.last is not None
    assert run.guard.last.verdict is GuardVerdict.EMPTY
    assert run.rejections == [GuardVerdict.REJECT_MICRO_BATCH] * 4
    assert_same(run.state(), before)


def test_a_huge_pixel_that_batchnorm_hides_is_seen_by_the_jump_of_its_statistics() -> None:
    """1e5 in one pixel: loss and gradients stay ordinary, and the statistics are ruined for hundreds of steps."""
    windows = batches(1)
    bad, unguarded = Run(sgd), Run(sgd)
    bad.guard = StepGuard(bad.model, bad.optimizer, max_jump=10.0)
    fault = (2, 0, "input", 1e5)
    train(bad, windows, fault)
    train(unguarded, windows, fault)
    assert unguarded.rejections == [], "nothing that is not finite"
    assert bad.rejections == [GuardVerdict.REJECT_MICRO_BATCH]
    assert (
        unguarded.model.state_dict()["1.running_var"].max() > 1e4 > 10 > bad.model.state_dict()["1.running_var"].max()
    )
    twin = Run(sgd)
    twin.guard = StepGuard(twin.model, twin.optimizer, max_jump=10.0)
    assert_same(bad.state(), train(twin, [w if i != 2 else [] for i, w in enumerate(windows)]).state())


def test_a_jump_that_stays_is_the_data_and_is_believed() -> None:
    """Raw numbers of any size: three batches are lost, then training goes on; a single fault later is one again."""
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.01), max_jump=10.0)
    generator = torch.Generator().manual_seed(0)
    verdicts = []
    for i in range(12):
        x = torch.randn(8, 2, generator=generator) * (1e9 if i == 9 else 1000.0)
        decision = guard.backward(model(x).square().mean())
        verdicts.append(bool(decision))
        guard.step()
    assert verdicts == [False] * 3 + [True] * 6 + [False] + [True] * 2
    assert guard.counts.jumps == 0


def test_the_buffer_that_jumped_is_named() -> None:
    model = nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 1), nn.BatchNorm1d(1))
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.01), max_jump=10.0)
    decision = guard.backward(model(torch.tensor([[1e4], [-1e4]])).square().mean())
    assert decision.culprits == ("0.running_var",)
    assert decision.reason.startswith("a running statistic of BatchNorm jumped to 1e+07 times")


def test_gradient_checkpointing_writes_batchnorm_twice_and_both_count() -> None:
    """The backward pass runs forward once more; a later rejection must not take that back."""
    from torch.utils.checkpoint import checkpoint

    def run(bad: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())
        head = nn.Linear(4, 1)
        model = nn.Sequential(body, head)
        guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1))
        generator = torch.Generator().manual_seed(1)
        for i in range(4):
            x = torch.randn(6, 3, generator=generator)
            hidden = checkpoint(body, x, use_reentrant=False)
            assert isinstance(hidden, Tensor)
            assert guard.backward(head(hidden).square().mean())
            if bad and i == 1:
                hidden = checkpoint(body, x * float("nan"), use_reentrant=False)
                assert isinstance(hidden, Tensor)
                assert not guard.backward(head(hidden).square().mean())
            assert guard.step()
        return model.state_dict()

    clean = run(bad=False)
    assert clean["0.1.num_batches_tracked"] == 8
    assert_same(run(bad=True), clean)


def test_an_optimizer_may_be_exchanged_between_windows() -> None:
    run = Run(sgd)
    train(run, batches(1)[:2])
    run.guard.optimizer = run.optimizer = adamw(run.model)
    assert run.guard.step_name.endswith("AdamW") or run.guard.step_name == "reference"
    before = copy.deepcopy(run.model.state_dict())
    train(run, batches(1)[2:3])
    assert len(run.optimizer.state) == len(list(run.model.parameters()))
    assert not torch.equal(before["0.weight"], run.model.state_dict()["0.weight"])


def test_what_cannot_be_guarded_is_refused() -> None:
    model = network()
    with pytest.raises(InvalidCallError, match="cannot guard LBFGS"):
        StepGuard(model, torch.optim.LBFGS(model.parameters()))
    guard = StepGuard(model, sgd(model))
    wrong: Any = {"box": None}
    with pytest.raises(InvalidCallError, match="takes numbers as loss items, but 'box' is None"):
        guard.backward(model(batches(1)[0][0]).square().mean(), wrong)
