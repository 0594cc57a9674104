"""The stage of the validation: the averaged model in eval mode, in the precision in which it is validated."""

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
from .flight import Flight
from .naming import broke
from .network import SEARCH
from .stage import Outcome, Verdict
from .step import averaged
from .subject import autocast


def validation(flight: Flight) -> Outcome:
    """Run one validation batch; outputs and losses must be finite."""
    subject = flight.subject
    if subject.evaluate is None:
        return Outcome(verdict=Verdict.SKIP, figure="nothing to validate with was given")
    module = unwrap(subject.model) if subject.ema is None else averaged(subject.ema)
    evaluate = subject.evaluate

    def run() -> tuple[Any, Any]:
        with torch.no_grad(), autocast(subject.device, subject.evaluated_in):
            return evaluate(module)

    with untouched(module, subject.device):
        module.eval()
        outputs, items = run()
        held = [t for _, t in tensors_in(outputs)]
        finite = all_finite(held)
        numbers = {name: float(v.detach() if isinstance(v, Tensor) else v) for name, v in items.items()}
        wrong = [name for name, value in numbers.items() if not math.isfinite(value)]
        parts = ", ".join(f"{name.removesuffix('_loss')} {value:.4g}" for name, value in numbers.items())
        figure = f"{subject.evaluated_on()}{subject.evaluated_in}{f', {parts}' if parts else ''}"
        details = {"precision": subject.evaluated_in, "items": numbers, "averaged": subject.ema is not None}
        if finite and not wrong:
            return Outcome(figure=figure, details=details)

        def again() -> tuple[Tensor, Any]:
            out, values = run()
            sums = [t.float().sum() for _, t in tensors_in(out) if t.is_floating_point()]
            return torch.stack(sums).sum() if sums else torch.zeros(()), values

        found = locate_call(module, again, backward=False, seconds=max(flight.clock.left, SEARCH))
    where = f"; {broke(found.first)}" if found.first is not None else ""
    half = subject.evaluated_in != "float32"
    return Outcome(
        verdict=Verdict.FAIL,
        figure=figure,
        reason=f"the validation is not finite in {subject.evaluated_in}: {', '.join(wrong) or 'the outputs'}{where}",
        fix="Train with amp=False: then the validation computes in float32 as well."
        if half
        else "Look at that module's running statistics: in eval mode they take the place of the batch's.",
        details=details | {"module": found.first.module if found.first is not None else None},
    )
