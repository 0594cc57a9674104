"""Training steps of small networks; each operation is judged on the inputs that the device itself has made."""

from __future__ import annotations

from typing import Any

from ..check import Check, check_of
from .gates import SHADOW

_QUICK = ("channels_last/strict", "channels_last/bfloat16")
_BOTH = ("contiguous", "channels_last")


def _check(
    name: str,
    operation: str,
    *,
    precisions: tuple[str, ...] = ("strict", "bfloat16"),
    quick: tuple[str, ...] = (),
    **more: Any,
) -> Check:
    return check_of(
        "shadow", name, operation, gates={precision: SHADOW[precision] for precision in precisions}, quick=quick,
        tier="quick" if quick else "default", seconds=600.0, **{"layouts": _BOTH, **more},
    )  # fmt: skip


def _step(name: str, *, task: str = "", **more: Any) -> Check:
    return _check(name, "step", **{"task": task or name, "size": (96, 160), "images": 2, "boxes": 4, **more})


_STRICT, _LAST = ("strict",), ("channels_last",)

CHECKS = (
    _step(
        "detect", optimizer="guard", size=(64, 352), images=3, quick=_QUICK, precisions=("strict", "bfloat16", "float16"),
        validates=True, note="maps 5, 11, 22 and 44 wide",
    ),
    _step("detect-many", task="detect", optimizer="adamw-plain", size=(320, 352), boxes=9,
          layouts=_LAST, precisions=_STRICT, note="2310 anchors, maps of 40, 80 and 160 rows"),
    _step("segment", optimizer="adamw-foreach", layouts=_LAST),
    _step("pose", optimizer="adamw-fused", layouts=("contiguous",), precisions=_STRICT),
    _step("obb", optimizer="musgd", layouts=("contiguous",), precisions=_STRICT),
    _step("classify", optimizer="sgd-foreach", layouts=_LAST, images=3),
    _check("blocks", "blocks", note="attention, deformable attention, LayerNorm, GELU, resizing, text heads"),
)  # fmt: skip
