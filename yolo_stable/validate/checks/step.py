"""One whole training step of a network of YOLO11n's size, and its forward pass under autocast."""

from __future__ import annotations

from ..check import check_of
from .gates import STEP

PARAMS = {"model": "yolo11n.yaml", "classes": 3, "size": 160, "batch": 4, "boxes": 3}
_QUICK = tuple(f"contiguous/{precision}" for precision in ("strict", "configured", "float16", "bfloat16"))

CHECKS = (
    check_of(
        "step",
        "yolo11n",
        "step",
        layouts=("contiguous", "channels_last"),
        gates=STEP,
        quick=_QUICK,
        seconds=600.0,
        **PARAMS,
    ),
)
