"""A short training: the first steps against float64, and whether it learns."""

from __future__ import annotations

from ..check import check_of
from ..gate import Gate
from .gates import SHORT
from .step import PARAMS

_CONVERGES = {
    "strict": Gate(
        reason="the loss after training on eight images lies within the larger of 25 % and 4 deviations around the mean of four"
        " runs with other rounding",
        source="the method of MLPerf's reference convergence points; runs on a CPU",
    )
}

CHECKS = (
    check_of("short", "first-steps", gates=SHORT, seconds=600.0, tier="default", **PARAMS, steps=3),
    check_of("short", "convergence", gates=_CONVERGES, seconds=1200.0, tier="default",
             **{**PARAMS, "size": 96, "batch": 4, "boxes": 2, "steps": 40, "lr": 0.01}),
)  # fmt: skip
