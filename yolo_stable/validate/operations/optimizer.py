"""Operations of the optimizer family."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ...guard.config import GuardConfig
from ...guard.fused import FusedStep
from ...guard.rehearsal import rehearse
from ...guard.step import ReferenceStep
from ..check import CheckCase
from ..evidence import CheckEvidence, Comparison
from ..hashed import HashedDraw
from ..machine import Machine
from ..recipe import lay_out, same_bits
from ..repeats import strictly_deterministic
from . import lists

_SHAPES = ((257,), (16, 8, 3, 3), (24, 16, 1, 1), (5, 40))
SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {"lr": 0.01, "momentum": 0.937, "nesterov": True, "weight_decay": 5e-4},
    "Adam": {"lr": 1e-3, "betas": (0.937, 0.999)},
    "AdamW": {"lr": 1e-3, "betas": (0.937, 0.999), "weight_decay": 5e-4},
}
Place = Callable[[Tensor], Tensor]


def _parameters(
    draw: HashedDraw, dtype: torch.dtype, place: Place, shapes: tuple[tuple[int, ...], ...] = _SHAPES
) -> list[nn.Parameter]:
    return [nn.Parameter(place(draw(f"p{i}", *shape).float().to(dtype))) for i, shape in enumerate(shapes)]


def _set_gradients(
    parameters: list[nn.Parameter], draw: HashedDraw, step: int, dtype: torch.dtype, place: Place, factor: float = 1.0
) -> None:
    for i, p in enumerate(parameters):
        p.grad = place((draw(f"g{step}/{i}", *p.shape) * factor).float().to(dtype))


def _make(name: str, parameters: list[nn.Parameter], mode: str, **more: Any) -> torch.optim.Optimizer:
    flags = {"plain": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}[mode]
    return getattr(torch.optim, name)(parameters, **{**SETTINGS[name], **more}, **flags)


def _compared(machine: Machine, found: list[nn.Parameter], expected: list[nn.Parameter]) -> list[Comparison]:
    pairs = enumerate(zip(found, expected, strict=True))
    return [Comparison(name=f"p{i}", value=machine.fetch(a), reference=b.detach()) for i, (a, b) in pairs]


def steps(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Take steps in one of torch's implementations, against the plain one in float64."""
    name, mode, count = (case.check.params[key] for key in ("name", "mode", "steps"))
    many = case.check.params.get("many", False)

    def train(dtype: torch.dtype, mode: str, place: Place) -> list[nn.Parameter]:
        """Take steps; with many tensors, some of which are large, with a weight decay that shows after a few."""
        parameters = _parameters(draw, dtype, place, lists.SHAPES if many else _SHAPES)
        optimizer = _make(name, parameters, mode, **({"weight_decay": 0.05} if many else {}))
        for step in range(count):
            _set_gradients(parameters, draw, step, dtype, place)
            optimizer.step()
        return parameters

    exact, single = partial(train, torch.float64, "plain"), partial(train, torch.float32, mode)
    try:
        return _against_the_cpu(machine, exact, lambda place: single(lambda t: lay_out(place(t), case.layout)))
    except RuntimeError as error:
        if "fused" in str(error) and "support" in str(error):
            return CheckEvidence(skip=f"no fused {name} here: {str(error)[:100]}")
        raise


Trained = Callable[[Place], list[nn.Parameter]]


def _against_the_cpu(machine: Machine, on_cpu: Trained, on_device: Trained) -> CheckEvidence:
    """Train on the CPU and on the device, and compare the parameters."""
    expected = on_cpu(lambda t: t.clone())
    with machine.computing():
        machine.dirty(float("nan"))
        return CheckEvidence(comparisons=_compared(machine, on_device(machine.place), expected))


def musgd(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Take steps of Ultralytics' MuSGD; its Muon part computes in bfloat16, so the CPU doing the same is the reference."""
    from ultralytics.optim.muon import MuSGD

    def train(place: Place) -> list[nn.Parameter]:
        parameters = _parameters(draw, torch.float32, place)
        many, few = parameters[1:3], [parameters[0], parameters[3]]
        common = {"lr": 0.01, "nesterov": True}
        muon = {"params": many, "use_muon": True, "momentum": 0.95, "weight_decay": 5e-4, **common}
        sgd = {"params": few, "use_muon": False, "momentum": 0.9, **common}
        optimizer = MuSGD([muon, sgd], muon=0.2, sgd=1.0)
        for step in range(case.check.params["steps"]):
            _set_gradients(parameters, draw, step, torch.float32, place)
            optimizer.step()
        return parameters

    return _against_the_cpu(machine, train, train)


def guard(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Take windows with the fused step of this project, the first of them broken, some clipped; against its reference step."""
    name = case.check.params["name"]
    windows = [(1.0, True), (0.05, False), (30.0, False), (0.05, True), *((0.05 + 0.1 * i, False) for i in range(12))]
    verdicts: list[list[str]] = []

    def train(kind: type[ReferenceStep], dtype: torch.dtype, more: dict[str, Any], place: Place) -> list[nn.Parameter]:
        parameters = _parameters(draw, dtype, place)
        optimizer = _make(name, parameters, "plain")
        step = kind(nn.ParameterList(parameters), optimizer, None, GuardConfig(max_norm=10.0), **more)
        said = []
        for i, (factor, broken) in enumerate(windows):
            _set_gradients(parameters, draw, i, dtype, place, factor)
            grad = parameters[1].grad
            if broken and grad is not None:
                grad[0, 0, 0, 0] = float("inf")
            said.append(step.run().verdict.value)
        verdicts.append(said)
        return parameters

    reference = partial(train, ReferenceStep, torch.float64, {})
    fused = partial(train, FusedStep, torch.float32, {"on_device": True})
    evidence = _against_the_cpu(machine, reference, fused)
    if verdicts[0] != verdicts[1]:
        evidence.problems.append(f"the fused step says {verdicts[1]} where the reference says {verdicts[0]}")
    return evidence


def rehearsal(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Ask the guard's own rehearsal whether the fused step can be trusted here; if not, training takes the reference step."""
    evidence = CheckEvidence()
    with machine.computing():
        for name in SETTINGS:
            problem = rehearse(_make(name, _parameters(draw, torch.float32, machine.place), "plain"))
            if problem:
                evidence.warnings.append(f"{name}: {problem}; guard.step=auto takes the reference step")
    return evidence


def scaler(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Let a step overflow under GradScaler: nothing may change but the scale; the next step is the plain optimizer's."""
    name, mode = case.check.params["name"], case.check.params.get("mode", "foreach")
    evidence = CheckEvidence()
    with machine.computing():
        parameters, twins = (_parameters(draw, torch.float32, machine.place) for _ in range(2))
        try:
            optimizer, twin = _make(name, parameters, mode), _make(name, twins, mode)
        except RuntimeError as error:
            if mode != "fused":
                raise
            return CheckEvidence(skip=f"no fused {name} here: {str(error)[:100]}")
        scale = torch.amp.GradScaler(machine.device.type, init_scale=65536.0)  # type: ignore[attr-defined]
        for step, overflows in enumerate((False, True, False)):
            before = [machine.fetch(t) for t in _everything(parameters, optimizer)]
            was = scale.get_scale()
            _begin(scale, parameters)
            _set_gradients(parameters, draw, step, torch.float32, machine.place, scale.get_scale())
            _set_gradients(twins, draw, step, torch.float32, machine.place)
            grad = parameters[1].grad
            if overflows and grad is not None:
                grad[3, 2, 1, 0] = float("inf")
            scale.step(optimizer)
            scale.update()
            if overflows:
                after = [machine.fetch(t) for t in _everything(parameters, optimizer)]
                if len(after) != len(before) or not all(same_bits(a, b) for a, b in zip(after, before, strict=True)):
                    evidence.problems.append("a step that overflowed has changed parameters or the optimizer's state")
                if scale.get_scale() != was / 2:
                    evidence.problems.append(f"the scale went from {was} to {scale.get_scale()}, not to half")
            else:
                twin.step()
        evidence.comparisons = [
            Comparison(name=f"p{i}", value=machine.fetch(a), reference=machine.fetch(b))
            for i, (a, b) in enumerate(zip(parameters, twins, strict=True))
        ]
    return evidence


def _begin(scale: Any, parameters: list[nn.Parameter]) -> None:
    """Let a scaler make its scale; gradients are put in by hand."""
    scale.scale(torch.stack([(p * 0).sum() for p in parameters]).sum())


def _everything(parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> list[Tensor]:
    state = [v for p in parameters for _, v in sorted(optimizer.state.get(p, {}).items()) if isinstance(v, Tensor)]
    return [*(p.detach() for p in parameters), *state]


def clip(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Clip gradients to a norm of 10, far above it and below it."""
    evidence = CheckEvidence()
    for factor in (30.0, 0.01):
        with machine.computing():
            parameters = _parameters(draw, torch.float32, machine.place)
            _set_gradients(parameters, draw, 0, torch.float32, machine.place, factor)
            norm = torch.nn.utils.clip_grad_norm_(parameters, 10.0)
            found = [machine.fetch(norm), *(machine.fetch(p.grad) for p in parameters if p.grad is not None)]
        grads = [(draw(f"g0/{i}", *shape) * factor).float().double() for i, shape in enumerate(_SHAPES)]
        total = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
        expected = [total, *(g * min(10.0 / (float(total) + 1e-6), 1.0) for g in grads)]
        names = ("norm", *(f"g{i}" for i in range(len(_SHAPES))))
        evidence.comparisons += [
            Comparison(name=f"{name} x {factor:g}", value=a, reference=b)
            for name, a, b in zip(names, found, expected, strict=True)
        ]
    return evidence


def ema(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Average weights over steps with ``_foreach_lerp_``, against float64."""

    def average(dtype: torch.dtype, place: Place) -> list[nn.Parameter]:
        means = _parameters(draw, dtype, place)
        for step in range(case.check.params["steps"]):
            new = [place(draw(f"w{step}/{i}", *p.shape).float().to(dtype)) for i, p in enumerate(means)]
            with torch.no_grad():
                torch._foreach_lerp_([p.data for p in means], new, 1 - 0.9999 * (1 - 2.0 ** -(step + 1)))
        return means

    return _against_the_cpu(machine, partial(average, torch.float64), partial(average, torch.float32))


def fused_sgd_overflow(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Report whether torch's fused SGD survives a first step that overflows; our step does not depend on it."""
    evidence = CheckEvidence()
    with machine.computing():
        parameters = _parameters(draw, torch.float32, machine.place)
        try:
            optimizer = _make("SGD", parameters, "fused")
        except RuntimeError as error:
            return CheckEvidence(skip=f"no fused SGD here: {str(error)[:100]}")
        scale = torch.amp.GradScaler(machine.device.type)  # type: ignore[attr-defined]
        _begin(scale, parameters)
        with strictly_deterministic():
            for step in range(2):
                _set_gradients(parameters, draw, step, torch.float32, machine.place, float("inf") if step == 0 else 1.0)
                scale.step(optimizer)
                scale.update()
        if not all(bool(torch.isfinite(machine.fetch(p)).all()) for p in parameters):
            evidence.notes.append(
                "torch's fused SGD is NaN after a first step that overflowed; guard.step makes the momentum"
            )
    return evidence


RECIPES = lists.RECIPES
PROCEDURES = {
    "steps": steps, "musgd": musgd, "guard": guard, "rehearsal": rehearsal, "scaler": scaler, "clip": clip, "ema": ema,
    "fused_sgd_overflow": fused_sgd_overflow,
}  # fmt: skip
