"""A short training: the first steps against float64, and whether it learns."""

from __future__ import annotations

from ..check import Check
from ..gate import Gate
from .gates import SHORT

_PARAMS = {"model": "yolo11n.yaml", "classes": 3, "size": 160, "batch": 4, "boxes": 3}
_CONVERGES = {
    "strict": Gate(
        reason="the loss after training on eight images lies within the larger of 25 % and 4 deviations around the mean of four"
        " runs with other rounding",
        source="the method of MLPerf's reference convergence points; runs on a CPU",
    )
}

CHECKS = (
    Check(
        id="short/first-steps", family="short", operation="first_steps", params={**_PARAMS, "steps": 3}, gates=SHORT,
        seconds=600.0,
        tier="default",
    ),
    Check(
        id="short/convergence", family="short", operation="convergence",
        params={**_PARAMS, "size": 96, "batch": 4, "boxes": 2, "steps": 40, "lr": 0.01},
        gates=_CONVERGES, seconds=1200.0, tier="default",
    ),
)  # fmt: skip
