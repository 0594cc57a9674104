"""The stages that look at the network: its numbers, one forward pass, the loss."""

from __future__ import annotations

import math
import time
import warnings

import torch

from .._shared.shell_text import CHECK
from ..autopsy.finding import Location
from ..autopsy.locate import locate_call
from ..checkpoints.float16 import LARGEST
from ..checkpoints.live_state import named_state
from ..guard.generators import GeneratorStates
from ..guard.health import all_finite, non_finite_names
from ..guard.wrappers import plainly_named, unwrap
from .activation_range import Widths, widest
from .budget import keep_pace
from .flight import Flight, failure
from .naming import broke, shortened
from .stage import Outcome, Verdict

BATCHES = 3
"""So many batches are run before a loss of 0 is judged."""
HALF_FULL = LARGEST / 2
"""Above half of what float16 holds, one doubling is missing to an infinity."""
SEARCH = 30.0
"""Seconds that the search for the first broken operation may take, when there is less left."""
FIX = f"What is wrong with files and labels:\n{CHECK}"
NO_GRADIENT = "None of the inputs have requires_grad=True"
"""What ``torch.utils.checkpoint`` warns of."""


def parameters(flight: Flight) -> Outcome:
    """Whether every number that training starts from is finite, and something is left to train."""
    model = unwrap(flight.subject.model)
    state = list(named_state(model, flight.subject.optimizer))
    trainable, every = flight.subject.trainable(), list(model.parameters())
    count, total = sum(p.numel() for p in trainable.values()), sum(p.numel() for p in every)
    frozen = [name for name, p in plainly_named(model.named_parameters()) if not p.requires_grad]
    figure = f"{total / 1e6:.2f} M parameters"
    figure += f", {count / 1e6:.2f} M trained, {len(frozen)} tensors frozen" if frozen else ", all trained"
    details = {"parameters": total, "trainable": count, "frozen": frozen[:50]}
    if not all_finite(tensor for _, tensor in state):
        names = non_finite_names(state)
        return Outcome(
            verdict=Verdict.FAIL,
            figure=figure,
            reason=f"not finite before the first step: {', '.join(names)}",
            fix="Start from another checkpoint (an earlier one of the run that made this one), or from the model's YAML.",
            details=details | {"names": names},
        )
    if not trainable:
        return Outcome(
            verdict=Verdict.FAIL,
            figure=figure,
            reason="every parameter is frozen: there is nothing to train",
            fix="Lower freeze=, or set requires_grad on what shall learn.",
            details=details,
        )
    return Outcome(figure=figure, details=details)


def forward(flight: Flight) -> Outcome:
    """One forward pass in the precision of training, with the range of every module's output."""
    subject = flight.subject
    keep_pace(flight)
    batch, draw = subject.batch(0), GeneratorStates(subject.device)
    model = unwrap(subject.model)
    with Widths(model, subject.network) as widths, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        began = time.perf_counter()
        try:
            flight.loss, flight.items = subject.run(batch)
        except Exception as error:  # noqa: BLE001 - told as what it is: the network's failure, or the loss's
            if not widths.finished:
                return failure(error, f"{widths.last or 'The model'} was running: look at its code and its input.")
            flight.loss_error = error
        flight.step_seconds = time.perf_counter() - began
    flight.checkpointed = any(NO_GRADIENT in str(one.message) for one in said)
    table = widths.table()
    flight.called = widths.called
    flight.widest = max((value for _, _, value, _ in table if math.isfinite(value)), default=0.0)
    broken = [name for name, _, value, _ in table if not math.isfinite(value)]
    top = widest([row for row in table if math.isfinite(row[2])])
    where = f" ({top[0]['module']}, {top[0]['type']})" if top else ""
    figure = f"{subject.samples()}, {len(table)} modules, largest output {flight.widest:.3g}{where}"
    details = {"widest": top, "not_finite": broken, "precision": subject.precision}
    buffers = [(name, b) for name, b in plainly_named(model.named_buffers()) if b.is_floating_point()]
    if broken or not all_finite(b for _, b in buffers):
        found = search(flight, draw, backward=False)
        if found.first is not None and not found.healthy:
            return Outcome(
                verdict=Verdict.FAIL,
                figure=figure,
                reason=f"the forward pass is not finite; {broke(found.first)}",
                fix=_mend(found, subject.precision),
                details=details | {"module": found.first.module, "op": found.first.op, "source": found.first.source},
            )
    if subject.precision == "float16" and flight.widest > HALF_FULL:
        return Outcome(
            verdict=Verdict.WARN,
            figure=figure,
            reason=f"{flight.widest:.3g} is above half of what float16 holds ({LARGEST:.0f}): a larger input overflows",
            fix="Train with amp=bf16 where the device has it, or amp=False.",
            details=details,
        )
    return Outcome(figure=figure, details=details)


def loss(flight: Flight) -> Outcome:
    """Whether the loss and each of its items is a finite number, and not nothing."""
    if flight.loss_error is not None:
        return failure(
            flight.loss_error,
            f"The network came to its end, and its loss did not: look at labels and classes.\n{FIX}",
        )
    assert flight.loss is not None
    value = float(flight.loss.detach())
    items = {name: float(item) for name, item in flight.items.items()}
    parts = ", ".join(f"{name.removesuffix('_loss')} {item:.4g}" for name, item in items.items())
    figure = f"{value:.4g}" + (f" ({parts})" if parts else "")
    details = {"loss": value, "items": items}
    wrong = [name for name, item in items.items() if not math.isfinite(item)]
    if wrong or not math.isfinite(value):
        what = ", ".join(f"{name} is {items[name]}" for name in wrong) or f"the loss is {value}"
        found = search(flight, GeneratorStates(flight.subject.device), backward=False)
        where = f"; {broke(found.first)}" if found.first is not None else ""
        return Outcome(
            verdict=Verdict.FAIL,
            figure=figure,
            reason=f"{what}{where}",
            fix=f"Look at the labels of this batch, and at the code of that item.\n{FIX}",
            details=details | {"not_finite": wrong},
        )
    named = [name.removesuffix("_loss") for name in items]
    off = [f"{name}=0" for name in named if flight.subject.plan.arguments.get(name) == 0]
    if value == 0:
        return _nothing_to_learn(flight, off, figure, details)
    if off:
        return Outcome(
            verdict=Verdict.WARN,
            figure=figure,
            reason=f"{', '.join(off)}: nothing is learnt from that part of the loss",
            fix="Leave it out, unless that is meant.",
            details=details,
        )
    return Outcome(figure=figure, details=details)


def _nothing_to_learn(flight: Flight, off: list[str], figure: str, details: dict[str, object]) -> Outcome:
    """Judge a loss of exactly 0: a failure, unless another batch has something to learn from."""
    others: list[float] = []
    for batch in list(flight.subject.batches(BATCHES))[1:]:
        others.append(float(flight.subject.run(batch)[0].detach()))
    if any(value != 0 for value in others):
        reason, verdict = "the loss of the first batch is exactly 0: there is nothing to learn from it", Verdict.WARN
    else:
        count = "of this batch" if not others else f"of each of {1 + len(others)} batches"
        reason, verdict = f"the loss {count} is exactly 0: there is nothing to learn", Verdict.FAIL
    fix = (
        f"Parts of the loss are switched off: leave {', '.join(off)} out."
        if off
        else "Look at the labels and the loss."
    )
    return Outcome(verdict=verdict, figure=figure, reason=reason, fix=fix, details=details | {"other losses": others})


def search(flight: Flight, draw: GeneratorStates, *, backward: bool) -> Location:
    """Run the first batch once more, operation by operation, and return where it broke."""
    subject = flight.subject

    with torch.no_grad():  # as they were: the pass has written what is not finite into the running statistics
        for name, buffer in plainly_named(unwrap(subject.model).named_buffers()):
            if f"model/{name}" in flight.before.tensors:
                buffer.copy_(flight.before.tensors[f"model/{name}"])

    def again() -> tuple[object, object]:
        draw.restore()
        return subject.run(subject.batch(0))

    seconds = max(flight.clock.left, SEARCH)
    return locate_call(unwrap(subject.model), again, inputs=subject.batch(0), backward=backward, seconds=seconds)


def _mend(found: Location, precision: str) -> str:
    first = found.first
    assert first is not None
    if first.origin.startswith("input"):
        return f"The batch itself is not finite.\n{FIX}"
    if first.origin:
        return "Start from another checkpoint: what this one holds there cannot be trained."
    if first.wide == "overflow" and precision != "float32":
        return "Train with amp=False, or amp=bf16 where the device has it."
    if first.wide == "finite":
        return "The same operation is finite on the CPU.\nWhat else the device gets wrong:\nyolo-stable validate"
    where = f" ({shortened(first.source)})" if first.source else ""
    return f"Look at {first.module or 'the model'}{where}, and at its weights."
