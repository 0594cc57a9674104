"""Hyperparameters that no training learns under: the optimizer's groups as they are, and as the warm-up will set them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .stage import StageOutcome, StageVerdict

LONG, ENDLESS = 0.99, 0.999
"""Momentum above the first deserves a look; above the second a gradient is followed for over 1000 steps, and the rate is in
effect over 1000 times ``lr``."""
PULL, COLLAPSE = 0.005, 0.05
"""Share of each weight that decay takes away in a step. Ultralytics' defaults come to 0.00008; at 0.05 nothing of a weight is
left after 100 steps but what the last ones put there."""
USUAL = 0.0005
"""Ultralytics' default decay."""
HEAVY, WEIGHTY = 0.1, 1.0
"""Decay that is part of a gradient which Adam and its kin then divide by its size: at 0.1 it is as large as a clipped
gradient, at 1 it is all that is left of it."""
DECOUPLED = 0.5
"""Decay of AdamW that deserves a look."""
BIAS = 0.2
"""Bias learning rate in the warm-up that deserves a look: twice Ultralytics' default."""
FAST, WILD = 0.05, 0.5
"""Adam and its kin move every weight by about ``lr`` in a step, and weights of networks are smaller than these."""
DECAYS = ("momentum", "alpha", "rho")
GAINS = ("box", "cls", "dfl", "pose", "kobj", "rle", "angle", "dlog", "dgrad", "dis")
"""Ultralytics' weights of the loss's items."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a training will do with its optimizer; empty where nobody knows."""

    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Ultralytics' arguments."""
    warmup: int = 0
    """Batches of the warm-up, 0 or more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remark:
    """A hyperparameter that is out of place."""

    verdict: StageVerdict
    reason: str
    fix: str


def hyperparameters(kind: str, groups: Sequence[Mapping[str, Any]], plan: Plan) -> StageOutcome:
    """Judge what the optimizer has been given, and what the plan of the training makes of it.

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
            yield Remark(
                verdict=StageVerdict.FAIL if lr >= WILD else StageVerdict.WARN,
                reason=f"lr={lr:g} of {kind}: it moves every weight by about that much in each step",
                fix="Lower lr0=, such as to 0.001.",
            )
        if group.get("maximize"):
            yield Remark(
                verdict=StageVerdict.FAIL,
                reason=f"maximize=True of {kind}: the loss is made larger",
                fix="Leave maximize out.",
            )
        if not float(group.get("eps", 1.0)) > 0:
            reason = f"eps={group['eps']:g} of {kind}: a gradient of 0 is divided by 0"
            yield Remark(verdict=StageVerdict.FAIL, reason=reason, fix="Leave eps at its default.")
    yield from _warmup(groups, plan)
    yield from _gains(plan.arguments)


def _averages(kind: str, group: Mapping[str, Any], note: str = "") -> Iterator[Remark]:
    """Judge everything that forgets: momentum and the averages of Adam and its kin."""
    betas = group.get("betas", ())
    named = [(name, float(group[name])) for name in DECAYS if name in group]
    named += [(f"betas[{place}]", float(value)) for place, value in enumerate(betas)]
    for name, value in named:
        fix = f"Set {note or name} from 0 to below 1, such as {'0.999' if name in ('betas[1]', 'alpha') else '0.9'}."
        what = f"{note or name}={value:g} of {kind}"
        if not 0 <= value < 1:
            why = (
                "an average that forgets nothing never follows the gradients"
                if value >= 1
                else "it has to be 0 or more"
            )
            yield Remark(verdict=StageVerdict.FAIL, reason=f"{what}: {why}", fix=fix)
        elif name in ("momentum", "betas[0]") and value > LONG:
            verdict = StageVerdict.FAIL if value > ENDLESS else StageVerdict.WARN
            yield Remark(
                verdict=verdict, reason=f"{what}: a gradient is followed for {1 / (1 - value):.0f} steps", fix=fix
            )
    if float(group.get("momentum", 0)) > 0 and float(group.get("dampening", 0)) >= 1:
        reason = f"dampening={group['dampening']:g} of {kind}: no gradient but the first counts"
        yield Remark(verdict=StageVerdict.FAIL, reason=reason, fix="Set dampening below 1.")


def _decay(kind: str, group: Mapping[str, Any]) -> Iterator[Remark]:
    decay, lr = float(group.get("weight_decay", 0)), float(group["lr"])
    fix = "Lower weight_decay=, such as to 0.0005; Ultralytics multiplies it by batch x accumulate / nbs."
    what = f"weight_decay={decay:g} of {kind}"
    if decay < 0:
        yield Remark(verdict=StageVerdict.FAIL, reason=f"{what}: weights would grow without end", fix=fix)
        return
    decoupled = kind == "AdamW" or bool(group.get("decoupled_weight_decay"))
    if not decoupled and ("betas" in group or "alpha" in group):
        if decay >= HEAVY:
            verdict = StageVerdict.FAIL if decay >= WEIGHTY else StageVerdict.WARN
            yield Remark(verdict=verdict, reason=f"{what} outweighs the gradients of the loss", fix=fix)
        return
    if decay <= USUAL:
        fix = "Lower lr0=: the decay is an ordinary one, and is multiplied by the rate."
    momentum = float(group.get("momentum", 0))
    share = lr * decay / (1 - momentum) if 0 <= momentum < 1 else 0.0
    if share >= PULL or (decoupled and decay >= DECOUPLED):
        verdict = StageVerdict.FAIL if share >= COLLAPSE else StageVerdict.WARN
        yield Remark(verdict=verdict, reason=f"{what} takes {share:.2%} of each weight away in a step", fix=fix)


def _warmup(groups: Sequence[Mapping[str, Any]], plan: Plan) -> Iterator[Remark]:
    """Judge what Ultralytics' warm-up sets: it overwrites the momentum of the groups, also of ``optimizer=auto``."""
    for remark in _of_the_warmup(groups, plan):
        idle = "" if plan.warmup else " (this training has no warm-up, so it counts for nothing)"
        yield replace(remark, verdict=remark.verdict if plan.warmup else StageVerdict.WARN, reason=remark.reason + idle)


def _of_the_warmup(groups: Sequence[Mapping[str, Any]], plan: Plan) -> Iterator[Remark]:
    if any("momentum" in group for group in groups):
        for name in ("warmup_momentum", "momentum"):
            if name in plan.arguments:
                yield from _averages("the warm-up", {"momentum": plan.arguments[name]}, name)
    rate = float(plan.arguments.get("warmup_bias_lr", 0))
    if rate > BIAS:
        adaptive = any("betas" in group for group in groups)
        yield Remark(
            verdict=StageVerdict.FAIL if adaptive or rate >= 1 else StageVerdict.WARN,
            reason=f"warmup_bias_lr={rate:g}: biases move {'by that much in each step' if adaptive else 'so fast'} as the"
            " training begins",
            fix=f"Set warmup_bias_lr={'0' if adaptive else '0.1'}.",
        )


def _gains(arguments: Mapping[str, Any]) -> Iterator[Remark]:
    for name in GAINS:
        if float(arguments.get(name) or 0) < 0:
            yield Remark(
                verdict=StageVerdict.FAIL,
                reason=f"{name}={arguments[name]:g}: that part of the loss would be made larger",
                fix=f"Set {name} to 0 or more.",
            )


def _span(groups: Sequence[Mapping[str, Any]], name: str) -> str:
    values = sorted({str(group[name]) for group in groups if name in group})
    return values[0] if len(values) == 1 else f"{values[0]} to {values[-1]}"
