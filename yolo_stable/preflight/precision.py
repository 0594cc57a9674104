"""The stage of the precisions: the same batch in each that was asked for, against float32."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from ..guard.generators import GeneratorStates
from ..guard.untouched import untouched
from .budget import affordable
from .flight import Flight
from .gradient_summary import Look
from .naming import grouped
from .stage import Outcome, Verdict

APART = 0.05
"""A loss that differs more than this from that in float32 is worth a look."""
SHARE = 0.3
"""Of the time that is left, for all precisions together."""
FEW = 2
"""Samples on the CPU, where float16 may take fifty times as long as float32."""
SCALE = 1024.0
"""Loss scale for float16, whose small gradients would be 0 otherwise."""


def precision(flight: Flight, wanted: Sequence[str]) -> Outcome:
    """Compare loss and gradients with those in float32.

    Args:
        flight: The preflight.
        wanted: Names of precisions; float32 is what they are held against.
    """
    others = list(dict.fromkeys(name for name in wanted if name != "float32"))
    if not others:
        return Outcome(
            verdict=Verdict.SKIP, figure="training computes in float32; --precision bfloat16,float16 compares others"
        )
    subject = flight.subject
    whole = subject.batch(0)
    most = FEW if subject.device.type == "cpu" else subject.size(whole)
    batch = subject.part(whole, range(min(most, affordable(flight, SHARE, len(others) + 1))))
    size = subject.size(batch)
    draw = GeneratorStates(subject.device)
    true = _measure(flight, batch, "float32", draw)
    rows: list[dict[str, Any]] = []
    for name in others:
        row = _measure(flight, batch, name, draw)
        row["apart"] = abs(row["loss"] - true["loss"]) / max(abs(true["loss"]), 1e-12)
        row["lost"] = [n for n in row["zero"] if n not in true["zero"]]
        rows.append(row)
    shown = "; ".join(
        f"{row['precision']} {row['apart']:.2%} from float32"
        if math.isfinite(row["apart"])
        else f"{row['precision']} nan"
        for row in rows
    )
    samples = f" ({size} of {subject.size(whole)} samples)" if size < subject.size(whole) else ""
    figure = f"loss in {shown}{samples}"
    details = {"float32": true["loss"], "precisions": [{k: v for k, v in r.items() if k != "zero"} for r in rows]}
    for row in rows:
        if not math.isfinite(row["loss"]) or row["wrong"]:
            what = f"the loss is {row['loss']}" if not math.isfinite(row["loss"]) else (
                f"{len(row['wrong'])} gradients are not finite ({grouped(row['wrong'])})"
            )  # fmt: skip
            return Outcome(
                verdict=Verdict.FAIL,
                figure=figure,
                reason=f"in {row['precision']} {what}, in float32 all is finite",
                fix="Train in float32 (amp=False), or in bfloat16 (amp=bf16) where the device has it.",
                details=details,
            )
    far = [row for row in rows if row["apart"] > APART]
    lost = [row for row in rows if row["lost"]]
    if far or lost:
        reason = "; ".join(
            [f"the loss in {row['precision']} differs by {row['apart']:.1%} from that in float32" for row in far]
            + [f"{len(row['lost'])} gradients vanish in {row['precision']} ({grouped(row['lost'])})" for row in lost]
        )
        return Outcome(
            verdict=Verdict.WARN,
            figure=figure,
            reason=reason,
            fix="Compare a short training in both (amp=False), or look at the widest modules (--json).",
            details=details,
        )
    return Outcome(figure=figure, details=details)


def _measure(flight: Flight, batch: Any, name: str, draw: GeneratorStates) -> dict[str, Any]:
    """Run forward and backward in one precision, from the same random numbers."""
    subject = flight.subject
    scale = SCALE if name == "float16" else 1.0
    began = time.perf_counter()
    with untouched(subject.model, subject.device):
        draw.restore()
        loss, _ = subject.run(batch, name)
        value = float(loss.detach())
        if math.isfinite(value):
            (loss * scale).backward()
            look = Look.at(subject.trainable())
        else:
            look = Look()
    seconds = time.perf_counter() - began
    return {"precision": name, "loss": value, "seconds": seconds, "wrong": look.wrong, "zero": look.zero}
