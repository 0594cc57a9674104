"""One whole training step of a network of YOLO11n's size, and its forward pass under autocast."""

from __future__ import annotations

from ..check import Check
from .gates import STEP

_PARAMS = {"model": "yolo11n.yaml", "classes": 3, "size": 160, "batch": 4, "boxes": 3}

CHECKS = (
    Check(
        id="step/yolo11n", family="step", operation="step", params=_PARAMS, layouts=("contiguous", "channels_last"), gates=STEP,
        quick=("contiguous/strict", "contiguous/configured", "contiguous/float16", "contiguous/bfloat16"), seconds=600.0,
    ),
)  # fmt: skip
