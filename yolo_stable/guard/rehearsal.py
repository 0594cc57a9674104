"""Rehearsal: tries the fused step on a few numbers, and chooses it if it can be trusted here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

from ..errors import InvalidCallError
from .config import GuardConfig
from .decision import GuardVerdict
from .fused import FusedStep, has_no_gaps, kernel_class
from .musgd import is_musgd
from .step import ReferenceStep

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}
"""Largest difference between the two steps, relative to the largest number: they round in different orders."""
MUON_TOLERANCE = 1e-4
"""The same for Muon: when a device sums the norm in another order, Newton-Schulz in bfloat16 makes 1e-5 of a last place."""


def choose_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler | None,
    config: GuardConfig,
) -> tuple[ReferenceStep, str]:
    """Return the step that ``config.step`` asks for, and its name, with the reason if ``auto`` fell back.

    Raises:
        InvalidCallError: ``"fused"`` is not possible; says why.

    Syncs: a few reads of tiny tensors.
    """
    if config.step == "reference":
        return ReferenceStep(model, optimizer, scaler, config), "reference"
    problem = obstacle(optimizer) or rehearse(optimizer)
    if not problem:
        return FusedStep(model, optimizer, scaler, config), f"fused {type(optimizer).__name__}"
    if config.step == "fused":
        raise InvalidCallError(f"guard.step=fused is not possible: {problem}. Set guard.step=auto or reference.")
    return ReferenceStep(model, optimizer, scaler, config), f"reference ({problem})"


def obstacle(optimizer: torch.optim.Optimizer) -> str:
    """Return why the fused step cannot take this optimizer, by its type and settings; empty if it can."""
    name = type(optimizer).__name__
    if kernel_class(optimizer) is None:
        return f"{name} has no fused kernel that clips and skips"
    for group in optimizer.param_groups:
        if group.get("differentiable"):
            return f"{name}(differentiable=True) has no fused kernel"
        if group.get("momentum") and group.get("dampening"):
            return "SGD with dampening has a first step of its own"
        for p in group["params"]:
            if not p.is_floating_point() or p.dtype not in TOLERANCE:
                return f"a parameter is {p.dtype}"
            if not has_no_gaps(p):
                return "a parameter is not dense in memory"
    return ""


def rehearse(optimizer: torch.optim.Optimizer) -> str:
    """Take four windows on a few numbers with both steps: plain, clipped, broken, plain. Return what went wrong, or "".

    The optimizer gives its class, settings, devices and dtypes; it is not touched.
    """
    try:
        return _rehearse(optimizer)
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, AssertionError) as error:
        return (
            f"the fused kernel does not run here: {' '.join(str(error).split())[:200]}"  # what a missing kernel raises
        )


def _rehearse(optimizer: torch.optim.Optimizer) -> str:
    with _no_global_hooks():
        reference, fused = _Stage(optimizer, ReferenceStep), _Stage(optimizer, FusedStep)
        for scale, broken in ((0.5, False), (50.0, False), (1.0, True), (2.0, False)):
            before = [t.clone() for t in fused.tensors()]
            verdicts = reference.window(scale, broken), fused.window(scale, broken)
            if verdicts[0] is not verdicts[1]:
                return f"the fused step says {verdicts[1].value} where the reference says {verdicts[0].value}"
            if broken and not all(torch.equal(a, b) for a, b in zip(before, fused.tensors(), strict=True)):
                return "the fused step leaves a trace of a window that it rejects"
        for a, b in zip(reference.tensors(), fused.tensors(), strict=True):
            difference = float((a.double() - b.double()).abs().max()) / max(float(a.double().abs().max()), 1e-30)
            allowed = max(TOLERANCE[a.dtype], MUON_TOLERANCE if is_musgd(optimizer) else 0.0)
            if not difference <= allowed:
                return f"the fused step differs from the reference by {difference:.1e}, more than {allowed:.1e}"
    return ""


@contextmanager
def _no_global_hooks() -> Iterator[None]:
    """Hide the hooks registered for all optimizers: they would keep the rehearsal from the fused step."""
    both: list[dict[int, Any]] = [_global_optimizer_pre_hooks, _global_optimizer_post_hooks]
    hidden = [(hooks, dict(hooks)) for hooks in both]
    try:
        for hooks, _ in hidden:
            hooks.clear()
        yield
    finally:
        for hooks, before in hidden:
            hooks.update(before)


class _Stage:
    """A few parameters with the settings of an optimizer, and a step for them."""

    def __init__(self, optimizer: torch.optim.Optimizer, step: type[ReferenceStep]) -> None:
        self.parameters = nn.ParameterList()
        groups: list[dict[str, Any]] = []
        for group in optimizer.param_groups:
            like = {(p.device, p.dtype): p for p in group["params"]}.values()
            start = torch.linspace(-1.0, 1.0, 12).reshape(4, 3)
            members = [nn.Parameter(start.clone().to(device=p.device, dtype=p.dtype)) for p in like for _ in range(2)]
            self.parameters.extend(members)
            settings = {key: value for key, value in group.items() if key not in {"params", "fused", "foreach"}}
            groups.append({**settings, "params": members, "lr": 0.01})
        extra = {key: getattr(optimizer, key) for key in ("muon", "sgd")} if is_musgd(optimizer) else {}
        kind: Any = type(optimizer)
        self.optimizer: torch.optim.Optimizer = kind(groups, **extra)
        self.step = step(self.parameters, self.optimizer, None, GuardConfig(max_norm=10.0))

    def window(self, scale: float, broken: bool) -> GuardVerdict:
        for i, p in enumerate(self.parameters):
            p.grad = torch.linspace(-scale, scale + i, 12).reshape(4, 3).to(device=p.device, dtype=p.dtype)
            if broken:
                p.grad[1, 1] = float("nan")
        return self.step.run().verdict

    def tensors(self) -> list[Tensor]:
        """Return parameters and optimizer state, in a fixed order."""
        state = [self.optimizer.state[p] for p in self.parameters]
        values = [s[key] for s in state for key in sorted(s) if isinstance(s[key], Tensor)]
        return [*(p.detach() for p in self.parameters), *values]
