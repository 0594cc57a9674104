"""Gradient stages: the backward pass, the gradient of every parameter, their norm."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from .._shared.numbers import count
from .._shared.shell_text import CHECK
from ..autopsy.frames import tensors_in
from ..guard.generators import GeneratorStates
from ..guard.reductions import told
from ..guard.wrappers import unwrap
from .activation_range import ActivationRanges
from .budget import affordable
from .gradient_summary import GradientSummary, largest
from .naming import broke, grouped
from .network import search
from .stage import StageOutcome
from .stage_runner import StageContext, failure
from .subject import undone

BATCHES = 3
"""Batches that are tried before a parameter without a gradient is judged."""
STEPS = 2
"""Steps that are tried: LoRA's A has no gradient as long as its B is zero."""
BACK_OFFS = 24
"""Halvings that the loss scale may take to settle."""
STEEP = 1e4
"""Above this multiple of ``max_norm``, clipping leaves next to nothing of each gradient."""
FLAT = 1e-7
FEW = 0.25
"""Share of the parameters that may wait for an object of their size, as the levels of a detector do."""
AWAY = 0.15
"""Of the time left, for looking at what has no gradient yet."""
CHECKPOINT = (
    "Gradient checkpointing is on and its input needs no gradient, so none comes out of it. Switch it on after the adapters"
    " were added, with use_reentrant=False; or make its input require a gradient (enable_input_require_grads(), or"
    " requires_grad_() on it)."
)


def backward(context: StageContext) -> StageOutcome:
    """Back-propagate, through the guard where there is an optimizer."""
    assert context.loss is not None
    if not context.loss.requires_grad:
        names = list(context.subject.trainable())
        return StageOutcome().fail(
            f"the loss depends on no parameter: no gradient reaches {len(names)} of {len(names)} trainable parameters"
            f" (first: {names[0]})",
            _reconnect(context),
            none=names,
        )
    began = time.perf_counter()
    try:
        refused = _back(context, context.loss, context.items)
    except RuntimeError as error:
        return failure(error, _reconnect(context) if "does not require grad" in str(error) else "")
    seconds = time.perf_counter() - began
    forward, context.step_seconds = context.step_seconds, context.step_seconds + seconds
    context.loss = context.loss.detach()
    if refused:
        return StageOutcome().fail(
            f"the guard rejects this batch: {refused}",
            "Training would reject every batch like it: look at what the reason names.",
        )
    size = context.subject.size(context.subject.batch(0))
    rate = f", {size / context.step_seconds:.3g} samples a second" if size > 1 else ""
    return StageOutcome(
        figure=f"forward {forward:.2f} s, backward {seconds:.2f} s{rate}",
        details={"forward_seconds": forward, "backward_seconds": seconds, "samples": size},
    )


def gradients(context: StageContext) -> StageOutcome:
    """Check that every trainable parameter has a gradient that is finite and not exactly zero."""
    draw = GeneratorStates(context.subject.device)
    trainable = context.subject.trainable()
    back_offs = _find_scale(context)
    look = GradientSummary.at(trainable)
    waiting: set[str] = set()
    if look.silent and not look.wrong:
        waiting = _reached(context, look.zero)
        if len(waiting) < len(look.silent) or len(waiting) > FEW * len(trainable):
            look = _after_batches(context, look)
    details = {"none": look.none, "zero": look.zero, "not_finite": look.wrong, "batches": context.micro_batches}
    batches = count(context.micro_batches, "batch", "batches")
    figure = f"{len(trainable) - len(look.silent) - len(look.wrong)} of {len(trainable)} after {batches}"
    figure += f", loss scale halved {back_offs} times" if back_offs else ""
    found = StageOutcome(figure=figure, details=details)
    if look.wrong:
        located = search(context, draw, backward=True)
        where = f"; {broke(located.first)}" if located.first is not None else f": {grouped(look.wrong)}"
        return found.fail(
            f"{len(look.wrong)} of {len(trainable)} gradients are not finite (first: {look.wrong[0]}){where}",
            "Look at that operation: its derivative does not exist there, or overflows.",
        )
    if not look.silent:
        return found
    waiting &= set(look.zero)
    late = _after_steps(context, [name for name in look.silent if name not in waiting])
    figure += f"; {len(late)} get theirs after a step, as LoRA's A does while B is 0" if late else ""
    found = StageOutcome(figure=figure, details=details | {"late": sorted(late), "waiting": sorted(waiting)})
    dead = [name for name in look.silent if name not in late and name not in waiting]
    if dead:
        return _dead(context, dead, found)
    if not waiting:
        return found
    names = [name for name in look.zero if name in waiting]
    if len(waiting) == len(trainable):
        return found.fail(
            f"all {len(names)} gradients are exactly 0 after {batches}, although the network is connected",
            "The loss is flat here: look for a weight of 0, a comparison, a rounding or a clamp in it.",
        )
    if len(waiting) <= FEW * len(trainable):
        return replace(found, figure=f"{figure}; {grouped(names)} have a gradient of 0 in these batches")
    return found.warn(
        f"{len(names)} gradients are exactly 0 although the network is connected ({grouped(names)}): nothing in these"
        " batches needs them",
        "Look for parts of the loss that are off, and compare the sizes of objects with imgsz."
        f"\nSee which are too small:\n{CHECK}",
    )


def norm(context: StageContext) -> StageOutcome:
    """Compare the global norm of the gradients with the norm that they are clipped to."""
    scaler = context.subject.scaler
    scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
    grads = [p.grad for p in context.subject.trainable().values() if p.grad is not None]
    value = float(told(torch.nn.utils.get_total_norm(grads), grads)) / scale
    context.norm = value
    config = context.subject.config
    limit = config.max_norm
    how = "" if limit is None else f", clipped to {limit:g}" if value > limit else f", below the clip at {limit:g}"
    found = StageOutcome(figure=f"{value:.3g}{how}", details={"norm": value, "max_norm": limit, "scale": scale})
    if not math.isfinite(value) or (config.reject_norm is not None and value > config.reject_norm):
        return found.fail(
            f"the guard rejects a norm of {value:.3g} (reject_norm {config.reject_norm})",
            "Look at the widest modules (--json), at lr0 and at the weights that training starts from.",
        )
    if limit is not None and value > STEEP * limit:
        return found.warn(
            f"clipping at {limit:g} leaves {limit / value:.0e} of each gradient",
            "Look for a module with a huge output (--json), or for a loss that is summed rather than averaged.",
        )
    if value < FLAT:
        return found.warn(f"a norm of {value:.3g} moves nothing", "Look at the weights of the loss's items.")
    return found


def _back(context: StageContext, loss: Tensor, items: Mapping[str, Tensor]) -> str:
    """Back-propagate into the open window; return why the guard refused, if it did."""
    if context.subject.optimizer is None:
        loss.backward()
    else:
        if context.guard is None:
            context.guard = context.subject.guard()
        decision = context.guard.backward(loss, items)
        if not decision:
            return f"{decision.reason} {', '.join(decision.culprits)}".strip()
    context.micro_batches += 1
    return ""


def _scaled(context: StageContext) -> bool:
    return context.subject.scaler is not None and context.subject.scaler.is_enabled()


def _find_scale(context: StageContext) -> int:
    """Let the loss scale settle, as in the first steps of training; return how often it was halved."""
    trainable = context.subject.trainable()
    for done in range(BACK_OFFS):
        if not _scaled(context) or context.guard is None or not GradientSummary.at(trainable).wrong:
            return done
        context.guard.step()  # rejects the window, and the scale backs off
        context.micro_batches = 0
        loss, items = context.subject.run(context.subject.batch(0))
        _back(context, loss, items)
    return BACK_OFFS


def _after_batches(context: StageContext, look: GradientSummary) -> GradientSummary:
    """Add the gradients of further batches, cut to the time."""
    trainable = context.subject.trainable()
    size = affordable(context, AWAY, BATCHES)
    for batch in list(context.subject.batches(BATCHES))[1:]:
        loss, items = context.subject.run(context.subject.part(batch, range(size)))
        if not loss.requires_grad or _back(context, loss, items):
            break
        look = GradientSummary.at(trainable)
        if not look.silent:
            break
    return look


def _after_steps(context: StageContext, names: list[str]) -> set[str]:
    """Return the parameters that get a gradient once the others have moved; undone afterwards."""
    subject, woken = context.subject, set()
    if subject.optimizer is None or not names:
        return woken
    trainable = {name: p for name, p in subject.trainable().items() if name in set(names)}
    batch = subject.part(subject.batch(0), range(affordable(context, AWAY, STEPS + 1)))
    with undone(subject):
        guard = subject.guard()
        for step in range(STEPS + 1):
            loss, items = subject.run(batch)
            if not loss.requires_grad or not guard.backward(loss, items):
                break
            if step:
                woken |= set(trainable) - set(GradientSummary.at(trainable).silent)
            guard.step()
    return woken


def _dead(context: StageContext, dead: list[str], found: StageOutcome) -> StageOutcome:
    """Name the parameters that no gradient reaches, and a likely reason."""
    total = len(context.subject.trainable())
    idle = [name for name in dead if _module_of(name) not in context.called]
    if context.checkpointed:
        fix = CHECKPOINT
    elif idle:
        fix = f"{_module_of(idle[0])} is not called in the forward pass: call it, or freeze or remove it."
    elif _reached(context, dead):
        fix = (
            "The network's output depends on them, but the loss does not: use that output in the loss, or freeze them."
        )
    else:
        fix = _reconnect(context)
    return found.fail(
        f"no gradient reaches {len(dead)} of {total} trainable parameters (first: {dead[0]}): {grouped(dead)}",
        fix,
        dead=dead,
    )


def _reached(context: StageContext, names: list[str]) -> set[str]:
    """Return the parameters that the network's output depends on: a random sum of it has a gradient for them."""
    subject = context.subject
    wanted = {name: p for name, p in subject.trainable().items() if name in set(names)}
    if not wanted:
        return set()
    with undone(subject), ActivationRanges(unwrap(subject.model), subject.network) as ranges:
        subject.run(subject.part(subject.batch(0), range(2)))
        outputs = [t for _, t in tensors_in(ranges.outputs) if t.requires_grad and t.is_floating_point()]
        if not outputs:
            return set()
        total = torch.stack([(t.float() * torch.rand_like(t, dtype=torch.float32)).sum() for t in outputs]).sum()
        grads = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    there = {name: grad for name, grad in zip(wanted, grads, strict=True) if grad is not None}
    return {name for name, value in zip(there, largest(there.values()), strict=True) if value != 0}


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]


def _reconnect(context: StageContext) -> str:
    if context.checkpointed:
        return CHECKPOINT
    return (
        "Look for detach(), no_grad(), .item() or .data between them and the loss. With gradient checkpointing, use"
        " use_reentrant=False and switch it on after the adapters were added."
    )
