"""Scaled dot product attention with each of torch's kernels, attention blocks of YOLO, and grid_sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..check import Check
from ..gate import Gate
from .gates import ATTENTION, ATTENTION_FAR, GRID_SAMPLE

_QUICK = (
    "contiguous/strict",
    "contiguous/configured",
    "contiguous/float16",
    "contiguous/bfloat16",
    "transposed/strict",
)


def _sdpa(
    name: str,
    shape: tuple[int, ...],
    kernel: str = "any",
    *,
    note: str = "",
    tier: str = "quick",
    gates: Mapping[str, Gate] = ATTENTION,
    **more: Any,
) -> Check:
    return Check(
        id=f"attention/{name}", family="attention", operation="sdpa", params={"shape": shape, "kernel": kernel, **more},
        layouts=("contiguous", "view", "transposed"), gates=gates, note=note, tier=tier, quick=_QUICK,
    )  # fmt: skip


CHECKS = (
    _sdpa("sdpa-32", (2, 2, 100, 32)),
    _sdpa("sdpa-math", (2, 2, 100, 32), "math"),
    _sdpa("sdpa-flash", (2, 2, 100, 32), "flash"),
    _sdpa("sdpa-efficient", (2, 2, 100, 32), "efficient"),
    _sdpa("sdpa-cudnn", (2, 2, 100, 32), "cudnn", tier="default"),
    _sdpa("sdpa-16", (2, 4, 49, 16), tier="default", note="odd sequence"),
    _sdpa("sdpa-64", (1, 2, 400, 64), tier="default"),
    _sdpa("sdpa-80", (1, 2, 127, 80), note="aotriton#183: NaN at head size 80"),
    _sdpa("sdpa-1007", (1, 1, 1007, 32), tier="default", note="sequences that are no multiple of 8"),
    _sdpa("sdpa-1009", (1, 1, 1009, 32), tier="default"),
    _sdpa("sdpa-mask", (2, 2, 100, 32), masked=True, note="pytorch#116176: wrong with a mask of one's own"),
    _sdpa("sdpa-large-scores", (3, 2, 130, 8), factor=200.0, gates=ATTENTION_FAR, note="scores above 88"),
    _sdpa("sdpa-400", (1, 1, 401, 16), note="the last keys of a sequence that is no multiple of a block"),
    _sdpa("sdpa-causal", (2, 2, 100, 32), causal=True, note="pytorch#160787: NaN gradient on A770"),
    Check(
        id="attention/psa", family="attention", operation="psa", params={"shape": (2, 64, 10, 10), "heads": 2, "key": 16},
        gates=ATTENTION, quick=_QUICK, note="the attention block of YOLO11",
    ),
    Check(
        id="attention/area", family="attention", operation="area", params={"shape": (2, 64, 8, 16), "heads": 2, "areas": 4},
        gates=ATTENTION, quick=_QUICK, tier="default", note="the attention of A2C2f",
    ),
    *(
        Check(
            id=f"attention/grid-sample-{name}", family="attention", operation="grid_sample",
            params={"mode": mode, "padding": padding, "reach": 1.3}, layouts=("contiguous", "channels_last", "view"),
            gates=GRID_SAMPLE,
            tier=tier, note=note,
        )
        for name, mode, padding, tier, note in (
            ("zeros", "bilinear", "zeros", "quick", "deformable attention of RT-DETR, points outside included"),
            ("border", "bilinear", "border", "quick", ""),
            ("nearest", "nearest", "zeros", "default", ""),
        )
    ),
)  # fmt: skip
