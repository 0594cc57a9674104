"""The stages of the step itself: what the optimizer moves, and the average that follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..guard.wrappers import plainly_named, unwrap
from ..trainer.ema import AverageUpdate
from .flight import Flight
from .hyperparameters import hyperparameters
from .naming import grouped
from .stage import Outcome, Verdict

LEAP = 0.1
"""A step that moves the weights by more than this share of their norm is no small step."""


def settings(flight: Flight) -> Outcome:
    """Judge the hyperparameters of the optimizer, as it has them and as the warm-up sets them."""
    subject = flight.subject
    if subject.optimizer is None:
        return Outcome(verdict=Verdict.SKIP, figure="no optimizer was given")
    groups = [
        {**group, "lr": group["lr"] if subject.lr is None else subject.lr} for group in subject.optimizer.param_groups
    ]
    return hyperparameters(type(subject.optimizer).__name__, groups, subject.plan)


def optimizer(flight: Flight) -> Outcome:
    """Take one step through the guard, and see that every group of the optimizer has moved."""
    subject = flight.subject
    if subject.optimizer is None or flight.guard is None:
        return Outcome(verdict=Verdict.SKIP, figure="no optimizer was given")
    missing, strange = _held(flight)
    details: dict[str, Any] = {"missing": missing, "strange": strange}
    kind = type(subject.optimizer).__name__
    if missing:
        return Outcome(
            verdict=Verdict.FAIL,
            reason=f"{kind} does not hold {len(missing)} trainable parameters (first: {missing[0]}): {grouped(missing)}",
            fix="Make the optimizer after the last parameter was added or unfrozen, from all of them.",
            details=details,
        )
    with_gradient = {id(p) for p in subject.trainable().values() if p.grad is not None and bool((p.grad != 0).any())}
    decision = flight.guard.step()
    flight.micro_batches = 0
    if not decision:
        return Outcome(
            verdict=Verdict.FAIL,
            reason=f"the guard does not take the step: {decision.reason}",
            fix="Look at the gradients: --json has what was measured.",
            details=details,
        )
    groups = _moves(flight, with_gradient)
    details |= {"groups": groups, "lr": _lr(flight), "step": flight.guard.step_name}
    total = sum(group["moved"] ** 2 for group in groups) ** 0.5
    weights = [
        flight.before.tensors[f"model/{name}"] for name, _ in plainly_named(unwrap(subject.model).named_parameters())
    ]
    size = sum(float(tensor.double().square().sum()) for tensor in weights) ** 0.5
    share = total / size if size else 0.0
    note = f" {subject.lr_note}" if subject.lr_note else ""
    lrs = sorted({float(group["lr"]) for group in groups})
    shown = f"{lrs[0]:g}" if len(lrs) == 1 else f"{lrs[0]:g} to {lrs[-1]:g}" if lrs else "none"
    figure = f"{kind} moved the weights by {share:.2g} of their norm at lr {shown}{note}"
    still = [group for group in groups if group["with_gradient"] and group["moved"] == 0]
    wrong = [name for name, p in subject.trainable().items() if not bool(p.detach().isfinite().all())]
    if wrong:
        reason = f"{len(wrong)} parameters are not finite after the step (first: {wrong[0]}): {grouped(wrong)}"
        fix = "Lower lr0, and look at the optimizer's state."
    elif still:
        named = "; ".join(f"group {g['group']}, lr {g['lr']:g}: {g['parameters']} parameters" for g in still)
        reason = f"the step has moved nothing in {len(still)} of {len(groups)} groups ({named})"
        zero = all(group["lr"] == 0 for group in still)
        fix = (
            "Their learning rate is 0: set lr0."
            if zero
            else "Their lr is too small for their dtype, or the step is a stub."
        )
    elif strange:
        reason = f"{kind} holds {strange} parameters that are not the model's, and trains them for nothing"
        fix = "Make the optimizer after the model was changed or copied."
        return Outcome(verdict=Verdict.WARN, figure=figure, reason=reason, fix=fix, details=details)
    elif share > LEAP:
        reason = f"one step moves the weights by {share:.0%} of their norm"
        return Outcome(verdict=Verdict.WARN, figure=figure, reason=reason, fix="Lower lr0.", details=details)
    else:
        return Outcome(figure=figure, details=details)
    return Outcome(verdict=Verdict.FAIL, figure=figure, reason=reason, fix=fix, details=details)


def average(flight: Flight) -> Outcome:
    """Let the EMA follow, and see that it has."""
    ema = flight.subject.ema
    if ema is None or flight.subject.optimizer is None:
        return Outcome(verdict=Verdict.SKIP, figure="there is none")
    model = unwrap(flight.subject.model)
    if hasattr(ema, "update_parameters"):
        ema.update_parameters(model)
    else:
        AverageUpdate()(ema, model)
    module = averaged(ema)
    theirs, mine = (dict(plainly_named(each.named_parameters())) for each in (module, model))
    prefix = "module." if not set(theirs) & set(mine) else ""
    followed, gap = 0.0, 0.0
    for name, parameter in mine.items():
        now, before = theirs.get(f"{prefix}{name}"), flight.before.tensors.get(f"ema/{prefix}{name}")
        if now is None or before is None or not parameter.requires_grad:
            continue
        followed += float((now.detach().double() - before.double()).square().sum())
        gap += float((parameter.detach().double() - before.double()).square().sum())
    wrong = [
        name
        for name, t in plainly_named(module.state_dict().items())
        if t.is_floating_point() and not bool(t.isfinite().all())
    ]
    share = (followed / gap) ** 0.5 if gap else 1.0
    details = {"followed": share, "updates": getattr(ema, "updates", None)}
    figure = f"followed the model {share:.1%} of the way"
    if wrong:
        reason, fix = f"not finite in the average: {grouped(wrong)}", "Make the average anew from the model."
    elif gap and not followed:
        reason = (
            "the average has not moved although the model has: validation and best.pt would show the start for ever"
        )
        fix = "Look at its decay (1 keeps it where it is), at enabled, and that it averages this model."
    else:
        return Outcome(figure=figure, details=details)
    return Outcome(verdict=Verdict.FAIL, figure=figure, reason=reason, fix=fix, details=details)


def averaged(ema: Any) -> torch.nn.Module:
    """Return the module that is averaged, of Ultralytics' object and of torch's module."""
    return unwrap(ema.ema) if isinstance(getattr(ema, "ema", None), torch.nn.Module) else ema


def _held(flight: Flight) -> tuple[list[str], int]:
    """Return trainable parameters that the optimizer has not, and how many it has that are not the model's."""
    assert flight.subject.optimizer is not None
    held = {id(p) for group in flight.subject.optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in unwrap(flight.subject.model).parameters()}
    return [name for name, p in flight.subject.trainable().items() if id(p) not in held], len(held - own)


def _moves(flight: Flight, with_gradient: set[int]) -> list[dict[str, Any]]:
    """Return how far each group of the optimizer went. Syncs: a few for each group."""
    assert flight.subject.optimizer is not None
    names = {id(p): name for name, p in plainly_named(unwrap(flight.subject.model).named_parameters())}
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(flight.subject.optimizer.param_groups):
        pairs: list[tuple[Tensor, Tensor]] = [
            (p.detach(), flight.before.tensors[f"model/{names[id(p)]}"]) for p in group["params"] if id(p) in names
        ]
        if not pairs:
            continue
        moved = torch.stack([(now - before).double().square().sum() for now, before in pairs]).sum().sqrt()
        size = torch.stack([before.double().square().sum() for _, before in pairs]).sum().sqrt()
        rows.append(
            {
                "group": group.get("param_group", number),
                "lr": float(group["lr"]),
                "parameters": len(pairs),
                "with_gradient": sum(id(p) in with_gradient for p in group["params"]),
                "moved": float(moved),
                "norm": float(size),
            }
        )
    return rows


def _lr(flight: Flight) -> list[float]:
    assert flight.subject.optimizer is not None
    return [float(group["lr"]) for group in flight.subject.optimizer.param_groups]
