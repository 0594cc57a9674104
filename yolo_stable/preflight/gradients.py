"""The stages between the loss and the optimizer: backward pass, gradients, their norm."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from .._shared.shell_text import CHECK
from ..autopsy.frames import tensors_in
from ..guard.generators import GeneratorStates
from ..guard.reductions import told
from ..guard.wrappers import unwrap
from .activation_range import Widths
from .budget import affordable
from .flight import Flight, failure
from .gradient_summary import Look, largest
from .naming import broke, grouped
from .network import search
from .stage import Outcome, Verdict
from .subject import undone

BATCHES = 3
"""So many batches are tried before a parameter without a gradient is judged."""
STEPS = 2
"""So many steps are tried: LoRA's A has no gradient as long as its B is zero."""
BACK_OFFS = 24
"""Halvings of the loss scale that are granted to find its place."""
STEEP = 1e4
"""Above this many times ``max_norm``, clipping leaves next to nothing of each gradient."""
FLAT = 1e-7
FEW = 0.25
"""So large a share of the parameters may wait for an object of their size, as the levels of a detector do."""
AWAY = 0.15
"""Of the time that is left, for looking at what has no gradient yet."""
CHECKPOINT = (
    "Gradient checkpointing is on and its input needs no gradient, so none comes out of it. Switch it on after the adapters"
    " were added, with use_reentrant=False; or make its input require a gradient (enable_input_require_grads(), or"
    " requires_grad_() on it)."
)


def backward(flight: Flight) -> Outcome:
    """Back-propagate, through the guard where there is an optimizer."""
    assert flight.loss is not None
    if not flight.loss.requires_grad:
        names = list(flight.subject.trainable())
        return Outcome(
            verdict=Verdict.FAIL,
            reason=f"the loss hangs on no parameter: no gradient reaches {len(names)} of {len(names)} trainable parameters"
            f" (first: {names[0]})",
            fix=_reconnect(flight),
            details={"none": names},
        )
    began = time.perf_counter()
    try:
        refused = _back(flight, flight.loss, flight.items)
    except RuntimeError as error:
        return failure(error, _reconnect(flight) if "does not require grad" in str(error) else "")
    seconds = time.perf_counter() - began
    forward, flight.step_seconds = flight.step_seconds, flight.step_seconds + seconds
    flight.loss = flight.loss.detach()
    if refused:
        return Outcome(
            verdict=Verdict.FAIL,
            reason=f"the guard refuses this batch: {refused}",
            fix="Training would leave out every batch like it: look at what the reason names.",
        )
    size = flight.subject.size(flight.subject.batch(0))
    rate = f", {size / flight.step_seconds:.3g} samples a second" if size > 1 else ""
    return Outcome(
        figure=f"forward {forward:.2f} s, backward {seconds:.2f} s{rate}",
        details={"forward_seconds": forward, "backward_seconds": seconds, "samples": size},
    )


def gradients(flight: Flight) -> Outcome:
    """Whether every trainable parameter has a gradient that is finite and not exactly zero."""
    draw = GeneratorStates(flight.subject.device)
    trainable = flight.subject.trainable()
    back_offs = _find_scale(flight)
    look = Look.at(trainable)
    waiting: set[str] = set()
    if look.silent and not look.wrong:
        waiting = _reached(flight, look.zero)
        if len(waiting) < len(look.silent) or len(waiting) > FEW * len(trainable):
            look = _after_batches(flight, look)
    details = {"none": look.none, "zero": look.zero, "not_finite": look.wrong, "batches": flight.micro_batches}
    batches = f"{flight.micro_batches} batch{'' if flight.micro_batches == 1 else 'es'}"
    figure = f"{len(trainable) - len(look.silent) - len(look.wrong)} of {len(trainable)} after {batches}"
    figure += f", loss scale halved {back_offs} times" if back_offs else ""
    if look.wrong:
        found = search(flight, draw, backward=True)
        where = f"; {broke(found.first)}" if found.first is not None else f": {grouped(look.wrong)}"
        return Outcome(
            verdict=Verdict.FAIL,
            figure=figure,
            reason=f"{len(look.wrong)} of {len(trainable)} gradients are not finite (first: {look.wrong[0]}){where}",
            fix="Look at that operation: its derivative does not exist there, or overflows.",
            details=details,
        )
    if not look.silent:
        return Outcome(figure=figure, details=details)
    waiting &= set(look.zero)
    late = _after_steps(flight, [name for name in look.silent if name not in waiting])
    figure += f"; {len(late)} get theirs after a step, as LoRA's A does while B is 0" if late else ""
    details |= {"late": sorted(late), "waiting": sorted(waiting)}
    dead = [name for name in look.silent if name not in late and name not in waiting]
    if dead:
        return _dead(flight, dead, figure, details)
    if not waiting:
        return Outcome(figure=figure, details=details)
    names = [name for name in look.zero if name in waiting]
    if len(waiting) == len(trainable):
        return Outcome(
            verdict=Verdict.FAIL,
            figure=figure,
            reason=f"all {len(names)} gradients are exactly 0 after {batches}, although the network is connected",
            fix="The loss is flat here: look for a weight of 0, a comparison, a rounding or a clamp in it.",
            details=details,
        )
    if len(waiting) <= FEW * len(trainable):
        return Outcome(figure=f"{figure}; {grouped(names)} have a gradient of 0 in these batches", details=details)
    return Outcome(
        verdict=Verdict.WARN,
        figure=figure,
        reason=f"{len(names)} gradients are exactly 0 although the network is connected ({grouped(names)}): nothing in these"
        " batches asks for them",
        fix=f"Look for parts of the loss that are off, and at the sizes of objects against imgsz.\nWhich are too small:\n{CHECK}",
        details=details,
    )


def norm(flight: Flight) -> Outcome:
    """Return the global norm of the gradients, against what they are clipped to."""
    scaler = flight.subject.scaler
    scale = scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0
    grads = [p.grad for p in flight.subject.trainable().values() if p.grad is not None]
    value = float(told(torch.nn.utils.get_total_norm(grads), grads)) / scale
    flight.norm = value
    config = flight.subject.config
    limit = config.max_norm
    how = "" if limit is None else f", clipped to {limit:g}" if value > limit else f", below the clip at {limit:g}"
    details = {"norm": value, "max_norm": limit, "scale": scale}
    if not math.isfinite(value) or (config.reject_norm is not None and value > config.reject_norm):
        return Outcome(
            verdict=Verdict.FAIL,
            figure=f"{value:.3g}{how}",
            reason=f"a norm of {value:.3g} is rejected by the guard (reject_norm {config.reject_norm})",
            fix="Look at the widest modules (--json), at lr0 and at the weights that training starts from.",
            details=details,
        )
    if limit is not None and value > STEEP * limit:
        reason, fix = (
            f"clipping at {limit:g} leaves {limit / value:.0e} of each gradient",
            "Look for a module with a huge output (--json), or for a loss that is summed rather than averaged.",
        )
    elif value < FLAT:
        reason, fix = f"a norm of {value:.3g} moves nothing", "Look at the weights of the loss's items."
    else:
        return Outcome(figure=f"{value:.3g}{how}", details=details)
    return Outcome(verdict=Verdict.WARN, figure=f"{value:.3g}{how}", reason=reason, fix=fix, details=details)


def _back(flight: Flight, loss: Tensor, items: Mapping[str, Tensor]) -> str:
    """Back-propagate into the open window, and return why the guard has not."""
    if flight.subject.optimizer is None:
        loss.backward()
    else:
        if flight.guard is None:
            flight.guard = flight.subject.guard()
        decision = flight.guard.backward(loss, items)
        if not decision:
            return f"{decision.reason} {', '.join(decision.culprits)}".strip()
    flight.micro_batches += 1
    return ""


def _scaled(flight: Flight) -> bool:
    return flight.subject.scaler is not None and flight.subject.scaler.is_enabled()


def _find_scale(flight: Flight) -> int:
    """Let the loss scale come down, as it does in the first steps of training; return how often it was halved."""
    trainable = flight.subject.trainable()
    for done in range(BACK_OFFS):
        if not _scaled(flight) or flight.guard is None or not Look.at(trainable).wrong:
            return done
        flight.guard.step()  # rejects the window, and the scale backs off
        flight.micro_batches = 0
        loss, items = flight.subject.run(flight.subject.batch(0))
        _back(flight, loss, items)
    return BACK_OFFS


def _after_batches(flight: Flight, look: Look) -> Look:
    """Add the gradients of further batches, as many samples of them as there is time for."""
    trainable = flight.subject.trainable()
    size = affordable(flight, AWAY, BATCHES)
    for batch in list(flight.subject.batches(BATCHES))[1:]:
        loss, items = flight.subject.run(flight.subject.part(batch, range(size)))
        if not loss.requires_grad or _back(flight, loss, items):
            break
        look = Look.at(trainable)
        if not look.silent:
            break
    return look


def _after_steps(flight: Flight, names: list[str]) -> set[str]:
    """Return those that get a gradient once the others have moved; nothing of it stays."""
    subject, woken = flight.subject, set()
    if subject.optimizer is None or not names:
        return woken
    trainable = {name: p for name, p in subject.trainable().items() if name in set(names)}
    batch = subject.part(subject.batch(0), range(affordable(flight, AWAY, STEPS + 1)))
    with undone(subject):
        guard = subject.guard()
        for step in range(STEPS + 1):
            loss, items = subject.run(batch)
            if not loss.requires_grad or not guard.backward(loss, items):
                break
            if step:
                woken |= set(trainable) - set(Look.at(trainable).silent)
            guard.step()
    return woken


def _dead(flight: Flight, dead: list[str], figure: str, details: dict[str, object]) -> Outcome:
    """Say which parameters no gradient reaches, and why that may be."""
    count = len(flight.subject.trainable())
    idle = [name for name in dead if _module_of(name) not in flight.called]
    if flight.checkpointed:
        fix = CHECKPOINT
    elif idle:
        fix = f"{_module_of(idle[0])} is not called in the forward pass: call it, or freeze or remove it."
    elif _reached(flight, dead):
        fix = (
            "The network's output depends on them, but the loss does not: use that output in the loss, or freeze them."
        )
    else:
        fix = _reconnect(flight)
    return Outcome(
        verdict=Verdict.FAIL,
        figure=figure,
        reason=f"no gradient reaches {len(dead)} of {count} trainable parameters (first: {dead[0]}): {grouped(dead)}",
        fix=fix,
        details=details | {"dead": dead},
    )


def _reached(flight: Flight, names: list[str]) -> set[str]:
    """Return the parameters that the network's output depends on: a random sum of it has a gradient for them."""
    subject = flight.subject
    wanted = {name: p for name, p in subject.trainable().items() if name in set(names)}
    if not wanted:
        return set()
    with undone(subject), Widths(unwrap(subject.model), subject.network) as widths:
        subject.run(subject.part(subject.batch(0), range(2)))
        outputs = [t for _, t in tensors_in(widths.outputs) if t.requires_grad and t.is_floating_point()]
        if not outputs:
            return set()
        total = torch.stack([(t.float() * torch.rand_like(t, dtype=torch.float32)).sum() for t in outputs]).sum()
        grads = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
    there = {name: grad for name, grad in zip(wanted, grads, strict=True) if grad is not None}
    return {name for name, value in zip(there, largest(there.values()), strict=True) if value != 0}


def _module_of(name: str) -> str:
    return name.rpartition(".")[0]


def _reconnect(flight: Flight) -> str:
    if flight.checkpointed:
        return CHECKPOINT
    return (
        "Look for detach(), no_grad(), .item() or .data between them and the loss; with gradient checkpointing use"
        " use_reentrant=False and switch it on after adapters were added."
    )
