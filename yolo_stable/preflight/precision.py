"""Precision stage: the same batch in each precision, against float32."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from ..guard.generators import GeneratorStates
from ..guard.untouched import untouched
from .budget import affordable
from .gradient_summary import GradientSummary
from .naming import grouped
from .stage import StageOutcome, skipped
from .stage_runner import StageContext

APART = 0.05
"""A loss that differs from float32 by more than this is worth a look."""
SHARE = 0.3
"""Of the time left, for all precisions together."""
FEW = 2
"""Samples on the CPU, where float16 may take fifty times as long as float32."""
SCALE = 1024.0
"""Loss scale for float16, whose small gradients would otherwise be 0."""


def precision(context: StageContext, wanted: Sequence[str]) -> StageOutcome:
    """Compare loss and gradients in these precisions with those in float32."""
    others = list(dict.fromkeys(name for name in wanted if name != "float32"))
    if not others:
        return skipped("training computes in float32; --precision bfloat16,float16 compares others")
    subject = context.subject
    whole = subject.batch(0)
    most = FEW if subject.device.type == "cpu" else subject.size(whole)
    batch = subject.part(whole, range(min(most, affordable(context, SHARE, len(others) + 1))))
    size = subject.size(batch)
    draw = GeneratorStates(subject.device)
    true = _measure(context, batch, "float32", draw)
    rows: list[dict[str, Any]] = []
    for name in others:
        row = _measure(context, batch, name, draw)
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
    told = [{key: value for key, value in row.items() if key != "zero"} for row in rows]
    found = StageOutcome(figure=f"loss in {shown}{samples}", details={"float32": true["loss"], "precisions": told})
    for row in rows:
        if not math.isfinite(row["loss"]) or row["wrong"]:
            what = f"the loss is {row['loss']}" if not math.isfinite(row["loss"]) else (
                f"{len(row['wrong'])} gradients are not finite ({grouped(row['wrong'])})"
            )  # fmt: skip
            return found.fail(
                f"in {row['precision']} {what}, in float32 all is finite",
                "Train in float32 (amp=False), or in bfloat16 (amp=bf16) where the device has it.",
            )
    far = [row for row in rows if row["apart"] > APART]
    lost = [row for row in rows if row["lost"]]
    if far or lost:
        return found.warn(
            "; ".join(
                [f"the loss in {row['precision']} differs from float32 by {row['apart']:.1%}" for row in far]
                + [
                    f"{len(row['lost'])} gradients vanish in {row['precision']} ({grouped(row['lost'])})"
                    for row in lost
                ]
            ),
            "Compare a short training in both (amp=False), or look at the widest modules (--json).",
        )
    return found


def _measure(context: StageContext, batch: Any, name: str, draw: GeneratorStates) -> dict[str, Any]:
    """Run forward and backward in one precision, from the same random numbers."""
    subject = context.subject
    scale = SCALE if name == "float16" else 1.0
    began = time.perf_counter()
    with untouched(subject.model, subject.device):
        draw.restore()
        loss, _ = subject.run(batch, name)
        value = float(loss.detach())
        summary = GradientSummary()
        if math.isfinite(value):
            (loss * scale).backward()
            summary = GradientSummary.at(subject.trainable())
    seconds = time.perf_counter() - began
    return {"precision": name, "loss": value, "seconds": seconds, "wrong": summary.wrong, "zero": summary.zero}
