"""Step stages: the optimizer's settings, what its step moves, and the average that follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..guard.wrappers import plainly_named, unwrap
from ..trainer.ema import AverageUpdate
from .hyperparameters import hyperparameters
from .naming import grouped
from .stage import StageOutcome, skipped
from .stage_runner import StageContext

LEAP = 0.1
"""A step that moves the weights by more than this share of their norm is too large."""


def settings(context: StageContext) -> StageOutcome:
    """Judge the optimizer's hyperparameters, now and during the warm-up."""
    subject = context.subject
    if subject.optimizer is None:
        return skipped("no optimizer was given")
    groups = [
        {**group, "lr": group["lr"] if subject.lr is None else subject.lr} for group in subject.optimizer.param_groups
    ]
    return hyperparameters(type(subject.optimizer).__name__, groups, subject.plan)


def optimizer(context: StageContext) -> StageOutcome:
    """Take one step through the guard, and check that every group of the optimizer moved."""
    subject = context.subject
    if subject.optimizer is None or context.guard is None:
        return skipped("no optimizer was given")
    missing, strange = _held(context)
    details: dict[str, Any] = {"missing": missing, "strange": strange}
    kind = type(subject.optimizer).__name__
    if missing:
        return StageOutcome(details=details).fail(
            f"{kind} does not hold {len(missing)} trainable parameters (first: {missing[0]}): {grouped(missing)}",
            "Make the optimizer from all parameters, after the last one was added or unfrozen.",
        )
    with_gradient = {id(p) for p in subject.trainable().values() if p.grad is not None and bool((p.grad != 0).any())}
    decision = context.guard.step()
    context.micro_batches = 0
    if not decision:
        return StageOutcome(details=details).fail(
            f"the guard rejects the step: {decision.reason}", "Look at the gradients: --json has the figures."
        )
    groups = _moves(context, with_gradient)
    details |= {"groups": groups, "lr": _lr(context), "step": context.guard.step_name}
    total = sum(group["moved"] ** 2 for group in groups) ** 0.5
    weights = [
        context.before.tensors[f"model/{name}"] for name, _ in plainly_named(unwrap(subject.model).named_parameters())
    ]
    size = sum(float(tensor.double().square().sum()) for tensor in weights) ** 0.5
    share = total / size if size else 0.0
    note = f" {subject.lr_note}" if subject.lr_note else ""
    lrs = sorted({float(group["lr"]) for group in groups})
    shown = f"{lrs[0]:g}" if len(lrs) == 1 else f"{lrs[0]:g} to {lrs[-1]:g}" if lrs else "none"
    found = StageOutcome(
        figure=f"{kind} moved the weights by {share:.2g} of their norm at lr {shown}{note}", details=details
    )
    still = [group for group in groups if group["with_gradient"] and group["moved"] == 0]
    wrong = [name for name, p in subject.trainable().items() if not bool(p.detach().isfinite().all())]
    if wrong:
        return found.fail(
            f"{len(wrong)} parameters are not finite after the step (first: {wrong[0]}): {grouped(wrong)}",
            "Lower lr0, and look at the optimizer's state.",
        )
    if still:
        named = "; ".join(f"group {g['group']}, lr {g['lr']:g}: {g['parameters']} parameters" for g in still)
        zero = all(group["lr"] == 0 for group in still)
        return found.fail(
            f"the step moved nothing in {len(still)} of {len(groups)} groups ({named})",
            "Their learning rate is 0: set lr0."
            if zero
            else "Their lr is too small for their dtype, or step() is a stub.",
        )
    if strange:
        return found.warn(
            f"{kind} holds {strange} parameters that are not the model's, and trains them for nothing",
            "Make the optimizer after the model was changed or copied.",
        )
    if share > LEAP:
        return found.warn(f"one step moves the weights by {share:.0%} of their norm", "Lower lr0.")
    return found


def average(context: StageContext) -> StageOutcome:
    """Update the EMA, and check that it followed the model."""
    ema = context.subject.ema
    if ema is None or context.subject.optimizer is None:
        return skipped("there is none")
    model = unwrap(context.subject.model)
    if hasattr(ema, "update_parameters"):
        ema.update_parameters(model)
    else:
        AverageUpdate()(ema, model)
    module = averaged(ema)
    theirs, mine = (dict(plainly_named(each.named_parameters())) for each in (module, model))
    prefix = "module." if not set(theirs) & set(mine) else ""
    followed, gap = 0.0, 0.0
    for name, parameter in mine.items():
        now, before = theirs.get(f"{prefix}{name}"), context.before.tensors.get(f"ema/{prefix}{name}")
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
    found = StageOutcome(
        figure=f"followed the model {share:.1%} of the way",
        details={"followed": share, "updates": getattr(ema, "updates", None)},
    )
    if wrong:
        return found.fail(f"not finite in the average: {grouped(wrong)}", "Make the average anew from the model.")
    if gap and not followed:
        return found.fail(
            "the average has not moved although the model has: validation and best.pt would never change",
            "Look at its decay (1 never moves it), at enabled, and whether it averages this model.",
        )
    return found


def averaged(ema: Any) -> torch.nn.Module:
    """Return the averaged module of Ultralytics' EMA or of torch's ``AveragedModel``."""
    return unwrap(ema.ema) if isinstance(getattr(ema, "ema", None), torch.nn.Module) else ema


def _held(context: StageContext) -> tuple[list[str], int]:
    """Return the trainable parameters that the optimizer lacks, and how many of its own are not the model's."""
    assert context.subject.optimizer is not None
    held = {id(p) for group in context.subject.optimizer.param_groups for p in group["params"]}
    own = {id(p) for p in unwrap(context.subject.model).parameters()}
    return [name for name, p in context.subject.trainable().items() if id(p) not in held], len(held - own)


def _moves(context: StageContext, with_gradient: set[int]) -> list[dict[str, Any]]:
    """Return how far each group of the optimizer moved. Syncs: a few per group."""
    assert context.subject.optimizer is not None
    names = {id(p): name for name, p in plainly_named(unwrap(context.subject.model).named_parameters())}
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(context.subject.optimizer.param_groups):
        pairs: list[tuple[Tensor, Tensor]] = [
            (p.detach(), context.before.tensors[f"model/{names[id(p)]}"]) for p in group["params"] if id(p) in names
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


def _lr(context: StageContext) -> list[float]:
    assert context.subject.optimizer is not None
    return [float(group["lr"]) for group in context.subject.optimizer.param_groups]
