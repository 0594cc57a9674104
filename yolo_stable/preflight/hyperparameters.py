"""Hyperparameters: judges the optimizer's groups as they are, and as the warm-up will set them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .stage import StageOutcome, StageVerdict

LONG, ENDLESS = 0.99, 0.999
"""Momentum above the first is worth a look; above the second a gradient acts for over 1000 steps, and the effective rate is over
1000 times ``lr``."""
PULL, COLLAPSE = 0.005, 0.05
"""Share of each weight that decay removes in a step: 0.00008 with Ultralytics' defaults; at 0.05 only the last of 100 steps
matter."""
USUAL = 0.0005
"""Ultralytics' default decay."""
HEAVY, WEIGHTY = 0.1, 1.0
"""Decay within the gradient, which Adam and its kin divide by its size: at 0.1 it is as large as a clipped gradient, at 1 it is
all that is left."""
DECOUPLED = 0.5
"""Decay of AdamW that is worth a look."""
BIAS = 0.2
"""Bias learning rate of the warm-up that is worth a look: twice Ultralytics' default."""
FAST, WILD = 0.05, 0.5
"""Adam and its kin move every weight by about ``lr`` per step; weights of networks are smaller than these."""
DECAYS = ("momentum", "alpha", "rho")
GAINS = ("box", "cls", "dfl", "pose", "kobj", "rle", "angle", "dlog", "dgrad", "dis")
"""Ultralytics' weights of the loss's items."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training will do with its optimizer; empty if unknown."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Ultralytics' arguments."""
    warmup: int = 0
    """Batches of the warm-up, 0 or more."""


@dataclass(frozen=True, slots=True)
class Remark:
    """What is wrong with a hyperparameter."""

    verdict: StageVerdict
    reason: str
    fix: str


def hyperparameters(kind: str, groups: Sequence[Mapping[str, Any]], plan: Plan) -> StageOutcome:
    """Judge the optimizer's settings, and what the plan of the training makes of them.

    Examples:
        >>> hyperparameters("SGD", [{"lr": 0.01, "momentum": 1.0}], Plan()).reason
        'momentum=1 of SGD: an average that forgets nothing never follows the gradients'
    """
    found = list(dict.fromkeys(_remarks(kind, groups, plan)))
    details = {"remarks": [f"{remark.verdict.value}: {remark.reason}" for remark in found]}
    shown = [name for name in ("lr", "momentum", "betas", "weight_decay") if any(name in group for group in groups)]
    figure = ", ".join(f"{name} {_span(groups, name)}" for name in shown)
    if not found:
        return StageOutcome(figure=figure, details=details)
    worst = next((remark for remark in found if remark.verdict is StageVerdict.FAIL), found[0])
    return StageOutcome(verdict=worst.verdict, figure=figure, reason=worst.reason, fix=worst.fix, details=details)


def _remarks(kind: str, groups: Sequence[Mapping[str, Any]], plan: Plan) -> Iterator[Remark]:
    for group in groups:
        yield from _averages(kind, group)
        yield from _decay(kind, group)
        if ("betas" in group or "alpha" in group) and (lr := float(group["lr"])) >= FAST:
            reason = f"lr={lr:g} of {kind}: it moves every weight by about that much in each step"
            yield Remark(_fail_if(lr >= WILD), reason, "Lower lr0=, for example to 0.001.")
        if group.get("maximize"):
            yield Remark(StageVerdict.FAIL, f"maximize=True of {kind}: the loss grows", "Leave maximize out.")
        if not float(group.get("eps", 1.0)) > 0:
            reason = f"eps={group['eps']:g} of {kind}: a gradient of 0 is divided by 0"
            yield Remark(StageVerdict.FAIL, reason, "Leave eps at its default.")
    yield from _warmup(groups, plan)
    yield from _gains(plan.arguments)


def _averages(kind: str, group: Mapping[str, Any], note: str = "") -> Iterator[Remark]:
    """Judge momentum and the averages of Adam and its kin."""
    betas = group.get("betas", ())
    named = [(name, float(group[name])) for name in DECAYS if name in group]
    named += [(f"betas[{place}]", float(value)) for place, value in enumerate(betas)]
    for name, value in named:
        fix = f"Set {note or name} from 0 to below 1, such as {'0.999' if name in ('betas[1]', 'alpha') else '0.9'}."
        what = f"{note or name}={value:g} of {kind}"
        if not 0 <= value < 1:
            endless = "an average that forgets nothing never follows the gradients"
            yield Remark(StageVerdict.FAIL, f"{what}: {endless if value >= 1 else 'it must be 0 or more'}", fix)
        elif name in ("momentum", "betas[0]") and value > LONG:
            yield Remark(_fail_if(value > ENDLESS), f"{what}: a gradient acts for {1 / (1 - value):.0f} steps", fix)
    if float(group.get("momentum", 0)) > 0 and float(group.get("dampening", 0)) >= 1:
        reason = f"dampening={group['dampening']:g} of {kind}: only the first gradient counts"
        yield Remark(StageVerdict.FAIL, reason, "Set dampening below 1.")


def _decay(kind: str, group: Mapping[str, Any]) -> Iterator[Remark]:
    decay, lr = float(group.get("weight_decay", 0)), float(group["lr"])
    fix = "Lower weight_decay=, for example to 0.0005; Ultralytics multiplies it by batch x accumulate / nbs."
    what = f"weight_decay={decay:g} of {kind}"
    if decay < 0:
        yield Remark(StageVerdict.FAIL, f"{what}: weights would grow without end", fix)
        return
    decoupled = kind == "AdamW" or bool(group.get("decoupled_weight_decay"))
    if not decoupled and ("betas" in group or "alpha" in group):
        if decay >= HEAVY:
            yield Remark(_fail_if(decay >= WEIGHTY), f"{what} outweighs the gradients of the loss", fix)
        return
    if decay <= USUAL:
        fix = "Lower lr0=: the decay is ordinary, but is multiplied by the rate."
    momentum = float(group.get("momentum", 0))
    share = lr * decay / (1 - momentum) if 0 <= momentum < 1 else 0.0
    if share >= PULL or (decoupled and decay >= DECOUPLED):
        yield Remark(_fail_if(share >= COLLAPSE), f"{what} removes {share:.2%} of each weight in a step", fix)


def _warmup(groups: Sequence[Mapping[str, Any]], plan: Plan) -> Iterator[Remark]:
    """Judge what Ultralytics' warm-up sets; it overwrites the groups' momentum, also with ``optimizer=auto``."""
    for remark in _of_the_warmup(groups, plan):
        idle = "" if plan.warmup else " (without effect: this training has no warm-up)"
        yield replace(remark, verdict=remark.verdict if plan.warmup else StageVerdict.WARN, reason=remark.reason + idle)


def _of_the_warmup(groups: Sequence[Mapping[str, Any]], plan: Plan) -> Iterator[Remark]:
    if any("momentum" in group for group in groups):
        for name in ("warmup_momentum", "momentum"):
            if name in plan.arguments:
                yield from _averages("the warm-up", {"momentum": plan.arguments[name]}, name)
    rate = float(plan.arguments.get("warmup_bias_lr", 0))
    if rate > BIAS:
        adaptive = any("betas" in group for group in groups)
        how = "by that much in each step" if adaptive else "too fast"
        yield Remark(
            _fail_if(adaptive or rate >= 1),
            f"warmup_bias_lr={rate:g}: biases move {how} as the training begins",
            f"Set warmup_bias_lr={'0' if adaptive else '0.1'}.",
        )


def _gains(arguments: Mapping[str, Any]) -> Iterator[Remark]:
    for name in GAINS:
        if float(arguments.get(name) or 0) < 0:
            reason = f"{name}={arguments[name]:g}: training would increase that part of the loss"
            yield Remark(StageVerdict.FAIL, reason, f"Set {name} to 0 or more.")


def _fail_if(failed: bool) -> StageVerdict:
    return StageVerdict.FAIL if failed else StageVerdict.WARN


def _span(groups: Sequence[Mapping[str, Any]], name: str) -> str:
    values = sorted({str(group[name]) for group in groups if name in group})
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
