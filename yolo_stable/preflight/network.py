"""Network stages: the parameters, one forward pass, the loss."""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import replace

import torch

from .._shared.shell_text import CHECK
from ..autopsy.finding import Break, Location
from ..autopsy.locate import locate_call
from ..checkpoints.float16 import LARGEST
from ..checkpoints.live_state import named_state
from ..guard.generators import GeneratorStates
from ..guard.health import all_finite, non_finite_names
from ..guard.wrappers import plainly_named, unwrap
from .activation_range import ActivationRanges, widest
from .budget import fit_to_time
from .naming import broke, in_parts, shortened
from .stage import StageOutcome
from .stage_runner import StageContext, failure

BATCHES = 3
"""Batches that run before a loss of 0 is judged."""
HALF_FULL = LARGEST / 2
"""Above half of what float16 holds, one doubling leads to an infinity."""
SEARCH = 30.0
"""Seconds that the search for the first broken operation may take, even when less is left."""
FIX = f"See what is wrong with files and labels:\n{CHECK}"
NO_GRADIENT = "None of the inputs have requires_grad=True"
"""What ``torch.utils.checkpoint`` warns of."""


def parameters(context: StageContext) -> StageOutcome:
    """Whether every number that training starts from is finite, and something is left to train."""
    model = unwrap(context.subject.model)
    state = list(named_state(model, context.subject.optimizer))
    trainable, every = context.subject.trainable(), list(model.parameters())
    count, total = sum(p.numel() for p in trainable.values()), sum(p.numel() for p in every)
    frozen = [name for name, p in plainly_named(model.named_parameters()) if not p.requires_grad]
    figure = f"{total / 1e6:.2f} M parameters"
    figure += f", {count / 1e6:.2f} M trained, {len(frozen)} tensors frozen" if frozen else ", all trained"
    found = StageOutcome(figure=figure, details={"parameters": total, "trainable": count, "frozen": frozen[:50]})
    if not all_finite(tensor for _, tensor in state):
        names = non_finite_names(state)
        return found.fail(
            f"not finite before the first step: {', '.join(names)}",
            "Start from another checkpoint, such as an earlier one of the same run, or from the model's YAML.",
            names=names,
        )
    if not trainable:
        return found.fail(
            "every parameter is frozen: there is nothing to train",
            "Lower freeze=, or set requires_grad on what should learn.",
        )
    return found


def forward(context: StageContext) -> StageOutcome:
    """One forward pass in the precision of training, with the range of every module's output."""
    subject = context.subject
    fit_to_time(context)
    batch, draw = subject.batch(0), GeneratorStates(subject.device)
    model = unwrap(subject.model)
    with ActivationRanges(model, subject.network) as ranges, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        began = time.perf_counter()
        try:
            context.loss, context.items = subject.run(batch)
        except Exception as error:  # noqa: BLE001 - the network's failure, or the loss's
            if not ranges.finished:
                return failure(error, f"{ranges.last or 'The model'} was running: look at its code and its input.")
            context.loss_error = error
        context.step_seconds = time.perf_counter() - began
    context.checkpointed = any(NO_GRADIENT in str(one.message) for one in said)
    table = ranges.table()
    context.called = ranges.called
    context.widest = max((value for _, _, value, _ in table if math.isfinite(value)), default=0.0)
    broken = [name for name, _, value, _ in table if not math.isfinite(value)]
    top = widest([row for row in table if math.isfinite(row[2])])
    where = f" ({top[0]['module']}, {top[0]['type']})" if top else ""
    figure = f"{subject.samples()}, {len(table)} modules, largest output {context.widest:.3g}{where}"
    found = StageOutcome(figure=figure, details={"widest": top, "not_finite": broken, "precision": subject.precision})
    buffers = [(name, b) for name, b in plainly_named(model.named_buffers()) if b.is_floating_point()]
    if broken or not all_finite(b for _, b in buffers):
        located = search(context, draw, backward=False)
        first = located.first
        if first is not None and not located.healthy:
            return found.fail(
                f"the forward pass is not finite; {broke(first)}",
                _mend(first, subject.precision),
                module=first.module,
                op=first.op,
                source=first.source,
            )
    if subject.precision == "float16" and context.widest > HALF_FULL:
        return found.warn(
            f"{context.widest:.3g} is above half of what float16 holds ({LARGEST:.0f}): a larger input overflows",
            "Train with amp=bf16 where the device has it, or amp=False.",
        )
    return found


def loss(context: StageContext) -> StageOutcome:
    """Whether the loss and each of its items is a finite number, and not nothing."""
    if context.loss_error is not None:
        return failure(
            context.loss_error, f"The network finished, but its loss did not: look at labels and classes.\n{FIX}"
        )
    assert context.loss is not None
    value = float(context.loss.detach())
    items = {name: float(item) for name, item in context.items.items()}
    parts = in_parts(items)
    found = StageOutcome(
        figure=f"{value:.4g}" + (f" ({parts})" if parts else ""), details={"loss": value, "items": items}
    )
    wrong = [name for name, item in items.items() if not math.isfinite(item)]
    if wrong or not math.isfinite(value):
        what = ", ".join(f"{name} is {items[name]}" for name in wrong) or f"the loss is {value}"
        located = search(context, GeneratorStates(context.subject.device), backward=False)
        where = f"; {broke(located.first)}" if located.first is not None else ""
        fix = f"Look at the labels of this batch, and at the code of that item.\n{FIX}"
        return found.fail(f"{what}{where}", fix, not_finite=wrong)
    named = [name.removesuffix("_loss") for name in items]
    off = [f"{name}=0" for name in named if context.subject.plan.arguments.get(name) == 0]
    if value == 0:
        return _nothing_to_learn(context, off, found)
    if off:
        return found.warn(
            f"{', '.join(off)}: nothing is learnt from that part of the loss", "Leave it out, unless you mean it."
        )
    return found


def _nothing_to_learn(context: StageContext, off: list[str], found: StageOutcome) -> StageOutcome:
    """Judge a loss of exactly 0: a failure, unless another batch has something to learn from."""
    batches = list(context.subject.batches(BATCHES))[1:]
    others = [float(context.subject.run(batch)[0].detach()) for batch in batches]
    switched_off = f"Parts of the loss are switched off: leave {', '.join(off)} out."
    fix = switched_off if off else "Look at the labels and the loss."
    found = replace(found, details={**found.details, "other losses": others})
    if any(value != 0 for value in others):
        return found.warn("the loss of the first batch is exactly 0: there is nothing to learn from it", fix)
    count = "of this batch" if not others else f"of each of {1 + len(others)} batches"
    return found.fail(f"the loss {count} is exactly 0: there is nothing to learn", fix)


def search(context: StageContext, draw: GeneratorStates, *, backward: bool) -> Location:
    """Run the first batch again, operation by operation, and return where it broke."""
    subject = context.subject

    with torch.no_grad():  # the pass wrote what is not finite into the running statistics
        for name, buffer in plainly_named(unwrap(subject.model).named_buffers()):
            if f"model/{name}" in context.before.tensors:
                buffer.copy_(context.before.tensors[f"model/{name}"])

    def again() -> tuple[object, object]:
        draw.restore()
        return subject.run(subject.batch(0))

    seconds = max(context.clock.left, SEARCH)
    return locate_call(unwrap(subject.model), again, inputs=subject.batch(0), backward=backward, seconds=seconds)


def _mend(first: Break, precision: str) -> str:
    if first.origin.startswith("input"):
        return f"The batch itself is not finite.\n{FIX}"
    if first.origin:
        return "Start from another checkpoint: this one cannot be trained."
    if first.wide == "overflow" and precision != "float32":
        return "Train with amp=False, or amp=bf16 where the device has it."
    if first.wide == "finite":
        return "The same operation is finite on the CPU.\nSee what else the device gets wrong:\nyolo-stable validate"
    where = f" ({shortened(first.source)})" if first.source else ""
    return f"Look at {first.module or 'the model'}{where}, and at its weights."
