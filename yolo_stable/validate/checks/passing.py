"""NaN and infinity in the calls that the guard reads health from, in each floating type: what loses them hides every fault."""

from __future__ import annotations

from ..check import check_of
from ..gate import Gate
from .gates import CLASSES

_CALLS = (
    "foreach-norm", "norm", "clip-norm", "unscale", "max", "min", "aminmax", "maximum", "sum", "predicates",
    "foreach", "foreach-in-place", "fused-sgd", "fused-adamw", "copies",
)  # fmt: skip
_GATES: dict[str, Gate] = dict.fromkeys(("strict", "float16", "bfloat16"), CLASSES["exact"])
_NOTES = {"max": "pytorch#130295: max loses NaN on MPS", "maximum": "pytorch#143976"}

_QUICK = tuple(f"contiguous/{precision}" for precision in _GATES)

CHECKS = tuple(
    check_of("exact", f"passes-{name}", "passes_on", gates=_GATES, quick=_QUICK, note=_NOTES.get(name, ""), name=name)
    for name in _CALLS
)
