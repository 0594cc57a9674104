"""Scaled dot product attention with each of torch's kernels, attention blocks of YOLO, and grid_sample."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..check import Check, check_of
from .gates import ATTENTION, ATTENTION_FAR, GRID_SAMPLE

_PRECISIONS = ("strict", "configured", "float16", "bfloat16")
_QUICK = (*(f"contiguous/{precision}" for precision in _PRECISIONS), "transposed/strict")
_attention = partial(check_of, "attention", gates=ATTENTION, quick=_QUICK)
_grid = partial(check_of, "attention", gates=GRID_SAMPLE, layouts=("contiguous", "channels_last", "view"))


def _sdpa(name: str, shape: tuple[int, ...], kernel: str = "any", **more: Any) -> Check:
    return _attention(name, "sdpa", layouts=("contiguous", "view", "transposed"), shape=shape, kernel=kernel, **more)


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
    _attention("psa", shape=(2, 64, 10, 10), heads=2, key=16, note="the attention block of YOLO11"),
    _attention("area", shape=(2, 64, 8, 16), heads=2, areas=4, tier="default", note="the attention of A2C2f"),
    _grid("grid-sample-zeros", "grid_sample", mode="bilinear", padding="zeros", reach=1.3,
          note="deformable attention of RT-DETR, points outside included"),
    _grid("grid-sample-border", "grid_sample", mode="bilinear", padding="border", reach=1.3),
    _grid("grid-sample-nearest", "grid_sample", mode="nearest", padding="zeros", reach=1.3, tier="default"),
)  # fmt: skip
