"""Validation stage: the averaged model in eval mode, in the precision of the validation."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..autopsy.frames import tensors_in
from ..autopsy.locate import locate_call
from ..guard.health import all_finite
from ..guard.untouched import untouched
from ..guard.wrappers import unwrap
from .naming import broke, in_parts
from .network import SEARCH
from .stage import StageOutcome, skipped
from .stage_runner import StageContext
from .step import averaged
from .subject import autocast


def validation(context: StageContext) -> StageOutcome:
    """Run one validation batch; outputs and losses must be finite."""
    subject = context.subject
    if subject.evaluate is None:
        return skipped("no validation was given")
    module = unwrap(subject.model) if subject.ema is None else averaged(subject.ema)
    evaluate, precision = subject.evaluate, subject.evaluated_in

    def run() -> tuple[Any, Any]:
        with torch.no_grad(), autocast(subject.device, precision):
            return evaluate(module)

    with untouched(module, subject.device):
        module.eval()
        outputs, items = run()
        finite = all_finite([t for _, t in tensors_in(outputs)])
        numbers = {name: float(v.detach() if isinstance(v, Tensor) else v) for name, v in items.items()}
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        parts = in_parts(numbers)
        found = StageOutcome(
            figure=f"{subject.evaluated_on()}{precision}{f', {parts}' if parts else ''}",
            details={"precision": precision, "items": numbers, "averaged": subject.ema is not None},
        )
        if finite and not wrong:
            return found

        def again() -> tuple[Tensor, Any]:
            out, values = run()
            sums = [t.float().sum() for _, t in tensors_in(out) if t.is_floating_point()]
            return torch.stack(sums).sum() if sums else torch.zeros(()), values

        located = locate_call(module, again, backward=False, seconds=max(context.clock.left, SEARCH))
    where = f"; {broke(located.first)}" if located.first is not None else ""
    return found.fail(
        f"the validation is not finite in {precision}: {', '.join(wrong) or 'the outputs'}{where}",
        "Train with amp=False: then the validation computes in float32 as well."
        if precision != "float32"
        else "Look at that module's running statistics: eval mode uses them instead of the batch's.",
        module=located.first.module if located.first is not None else None,
    )
