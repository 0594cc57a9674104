"""NaN and infinity in the calls that health is read from, in each floating type: what loses them, loses every fault."""

from __future__ import annotations

from ..check import Check
from ..gate import Gate
from .gates import CLASSES

_CALLS = (
    "foreach-norm", "norm", "clip-norm", "unscale", "max", "min", "aminmax", "maximum", "sum", "predicates",
    "foreach", "foreach-in-place", "fused-sgd", "fused-adamw", "copies",
)  # fmt: skip
_GATES: dict[str, Gate] = dict.fromkeys(("strict", "float16", "bfloat16"), CLASSES["exact"])
_NOTES = {"max": "pytorch#130295: max loses NaN on MPS", "maximum": "pytorch#143976"}

CHECKS = tuple(
    Check(
        id=f"exact/passes-{name}", family="exact", operation="passes_on", params={"name": name}, gates=_GATES,
        quick=tuple(f"contiguous/{precision}" for precision in _GATES), note=_NOTES.get(name, ""),
    )
    for name in _CALLS
)  # fmt: skip
