"""Ultralytics' MuSGD, taken apart so that it can be clipped and skipped on the device."""

from __future__ import annotations

import copy
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.optim import MuSGD
from ultralytics.optim.muon import muon_update

from yolo_stable.guard import Decision, GuardConfig, GuardVerdict
from yolo_stable.guard.fused import FusedStep
from yolo_stable.guard.musgd import MuSGDKernel, _gated_muon, is_musgd
from yolo_stable.guard.step import ReferenceStep

SHAPES = ((6, 4), (4, 6), (5, 2, 3, 3), (40, 2), (7,), (3,))
"""Matrices that are tall, wide, of a convolution, and too tall to share a batch; vectors for SGD alone."""


def build(nesterov: bool = True, momentum: float = 0.9, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, MuSGD]:
    generator = torch.Generator().manual_seed(1)
    model = nn.ParameterList([nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES])
    shared: dict[str, Any] = {"lr": 0.02, "momentum": momentum, "nesterov": nesterov}
    matrices, vectors = [p for p in model if p.ndim > 1], [p for p in model if p.ndim == 1]
    groups = [{"params": matrices, "use_muon": True, "weight_decay": 5e-4, **shared}, {"params": vectors, **shared}]
    return model, MuSGD(groups, muon=0.3, sgd=0.7)


def fill(model: nn.Module, seed: int, size: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        p.grad = (torch.randn(p.shape, generator=generator) * size).to(p.dtype)


def window(step: ReferenceStep, seed: int, size: float = 1.0, wrong: float | None = None) -> Decision:
    fill(step.model, seed, size)
    if wrong is not None:
        last = list(step.model.parameters())[2].grad
        assert last is not None
        last[0, 0, 0, 0] = wrong
    return step.run()


def tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [
        *(p.detach() for p in model.parameters()),
        *(state[key] for p in model.parameters() if (state := optimizer.state.get(p)) for key in sorted(state)),
    ]


def difference(a: list[Tensor], b: list[Tensor]) -> float:
    return max(
        float((x.double() - y.double()).abs().max()) / max(float(x.double().abs().max()), 1e-30)
        for x, y in zip(a, b, strict=True)
    )


def bits(values: list[Tensor]) -> list[bytes]:
    """Return what is in memory, where -0.0 is not 0.0."""
    return [v.detach().clone().numpy().tobytes() for v in values]


nesterov_or_not = pytest.mark.parametrize("nesterov", [True, False], ids=["nesterov", "plain"])


@nesterov_or_not
def test_without_a_gate_the_muon_part_is_stocks_own(nesterov: bool) -> None:
    stock, theirs = build(nesterov)
    model, ours = build(nesterov)
    for seed in range(10):
        fill(stock, seed)
        fill(model, seed)
        theirs.step()
        MuSGDKernel(ours).step([], None, None)
        for p, q in zip(stock.parameters(), model.parameters(), strict=True):
            assert torch.equal(theirs.state[p]["momentum_buffer"], ours.state[q]["momentum_buffer"]) or p.ndim == 1
    assert difference(tensors(stock, theirs), tensors(model, ours)) < 1e-6


@nesterov_or_not
def test_an_open_gate_gives_what_stock_gives(nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    params, grads, buffers = ([torch.randn(s, generator=generator) for s in SHAPES[:4]] for _ in range(3))
    theirs, moved = [p.clone() for p in params], [b.clone() for b in buffers]
    updates = muon_update([g.clone() for g in grads], moved, beta=0.9, nesterov=nesterov)
    torch._foreach_add_(theirs, list(updates), alpha=-0.1)
    _gated_muon(muon_update, params, grads, buffers, 0.9, nesterov, 0.1, torch.tensor(0.0))
    assert bits(buffers) == bits(moved)
    assert difference(theirs, params) < 1e-6


@nesterov_or_not
@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf], ids=str)
def test_a_closed_gate_lets_nothing_through(wrong: float, nesterov: bool) -> None:
    generator = torch.Generator().manual_seed(2)
    grads = [torch.full(s, wrong) for s in SHAPES[:4]]
    params, buffers = ([torch.randn(s, generator=generator) for s in SHAPES[:4]] for _ in range(2))
    before = bits([*params, *buffers])
    _gated_muon(muon_update, params, grads, buffers, 0.9, nesterov, 0.1, torch.tensor(1.0))
    assert bits([*params, *buffers]) == before


@nesterov_or_not
@pytest.mark.parametrize("at", [0, 1, 4])
@pytest.mark.parametrize("wrong", [math.nan, math.inf, 1e30], ids=["nan", "inf", "square-overflows"])
def test_a_skipped_window_leaves_every_bit_as_it_was(wrong: float, at: int, nesterov: bool) -> None:
    model, optimizer = build(nesterov)
    with torch.no_grad():
        for p in model.parameters():
            p.view(-1)[0] = -0.0
    step = FusedStep(model, optimizer, None, GuardConfig(), on_device=True)
    for seed in range(at):
        assert window(step, seed)
    before, keys = bits(tensors(model, optimizer)), list(optimizer.state)
    decision = window(step, 99, wrong=wrong)
    assert decision.verdict is GuardVerdict.REJECT_WINDOW
    assert decision.culprits == (() if wrong == 1e30 else ("2",))
    assert bits(tensors(model, optimizer)) == before
    assert [id(p) for p in optimizer.state] == [id(p) for p in keys]


@nesterov_or_not
@pytest.mark.parametrize("max_norm", [10.0, 0.1, None], ids=["max_norm=10", "max_norm=0.1", "no-clip"])
def test_fifty_windows_on_a_device(max_norm: float | None, nesterov: bool) -> None:
    pairs = build(nesterov), build(nesterov)
    config = GuardConfig(max_norm=max_norm)
    reference = ReferenceStep(*pairs[0], None, config)
    ours = FusedStep(*pairs[1], None, config, on_device=True)
    for seed in range(50):
        wrong = math.nan if seed in {0, 20, 21} else None
        size = 10.0 ** (seed % 5 - 3)
        expected, decision = window(reference, seed, size, wrong), window(ours, seed, size, wrong)
        assert (decision.verdict, decision.culprits) == (expected.verdict, expected.culprits)
    worst = difference(tensors(*pairs[0]), tensors(*pairs[1]))
    print(f"largest relative difference {worst:.1e}")
    assert worst < 1e-6


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_momentum_that_warms_up_from_zero(on_device: bool) -> None:
    """The kernel refuses momentum of zero with a buffer at hand; stock keeps the buffer at the last gradient."""
    p, buffer = torch.zeros(2), torch.zeros(2)
    with pytest.raises(RuntimeError, match="momentum_buffer_list"):
        torch._fused_sgd_(
            [p],
            [p],
            [buffer],
            weight_decay=0.0,
            momentum=0.0,
            lr=0.1,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
    pairs = build(), build()
    reference = ReferenceStep(*pairs[0], None, GuardConfig())
    ours = FusedStep(*pairs[1], None, GuardConfig(), on_device=on_device)
    for seed, momentum in enumerate([0.0, 0.0, 0.5, 0.9, 0.0, 0.9]):
        for _, optimizer in pairs:
            for group in optimizer.param_groups:
                group["momentum"] = momentum
        assert window(reference, seed).verdict is window(ours, seed).verdict
    assert difference(tensors(*pairs[0]), tensors(*pairs[1])) < 1e-6


@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_training_goes_on_from_a_loaded_state(on_device: bool) -> None:
    pairs = build(), build()
    reference = ReferenceStep(*pairs[0], None, GuardConfig())
    for seed in range(3):
        window(reference, seed)
    model, optimizer = pairs[1]
    model.load_state_dict(pairs[0][0].state_dict())
    optimizer.load_state_dict(copy.deepcopy(pairs[0][1].state_dict()))
    ours = FusedStep(model, optimizer, None, GuardConfig(), on_device=on_device)
    for seed in range(3, 8):
        wrong = math.nan if seed == 3 else None
        assert window(reference, seed, 5.0, wrong).verdict is window(ours, seed, 5.0, wrong).verdict
    assert difference(tensors(*pairs[0]), tensors(model, optimizer)) < 1e-6
    assert optimizer.state_dict()["param_groups"] == pairs[0][1].state_dict()["param_groups"]


def test_only_the_real_one_is_taken_for_musgd() -> None:
    assert is_musgd(build()[1])
    assert not is_musgd(torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1))

    class Better(MuSGD):
        pass

    class Elsewhere(torch.optim.SGD):
        pass

    Elsewhere.__name__, Elsewhere.__module__ = "MuSGD", "torch.optim"
    parameters = [nn.Parameter(torch.ones(2, 2))]
    assert not is_musgd(Better(parameters))
    assert not is_musgd(Elsewhere(parameters, lr=0.1))


def test_ultralytics_is_not_imported_for_it() -> None:
    code = "import sys, yolo_stable.guard.musgd; print('ultralytics' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "False"
