"""Convolutions and matrix products, each forward, by its input and by its weight: where most known device bugs are."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..check import Check, check_of
from .gates import LINEAR, LINEAR_IMAGES, LINEAR_LONG, LINEAR_RANGE

_PRECISIONS = ("strict", "configured", "float16", "bfloat16")
_QUICK = ("contiguous/strict", "channels_last/strict", *(f"contiguous/{precision}" for precision in _PRECISIONS[1:]))
_FEW = ("contiguous/strict", "contiguous/bfloat16")
_LAYOUTS = ("contiguous", "channels_last", "view")
_ALL = (*_LAYOUTS, "mixed", "chunk", "transposed")
_EVERY = (
    *(f"{layout}/strict" for layout in _ALL),
    "contiguous/float16",
    "contiguous/bfloat16",
    "channels_last/bfloat16",
)
_linear = partial(check_of, "linear", gates=LINEAR, quick=_QUICK)


def _conv(name: str, shape: tuple[int, ...], out: int, kernel: int, *, operation: str = "conv2d", **more: Any) -> Check:
    return _linear(name, operation, **{"layouts": _LAYOUTS, "shape": shape, "out": out, "kernel": kernel, **more})


def _matmul(name: str, *shape: int, transposed: str = "nn", **more: Any) -> Check:
    return _linear(name, "matmul", layouts=("contiguous", "view"), shape=shape, transposed=transposed, **more)


CHECKS = (
    _conv("conv-stem", (2, 3, 64, 64), 16, 3, stride=2, note="the first layer of every YOLO"),
    _conv("conv1x1-128-64", (4, 128, 20, 20), 64, 1),
    _conv("conv1x1-128-512", (2, 128, 28, 28), 512, 1, tier="default", note="MIOpen#670: wrong wgrad on gfx1030"),
    _conv("conv1x1-256-128", (1, 256, 56, 56), 128, 1, tier="default", note="MIOpen#559: wrong wgrad on gfx1030"),
    _conv("conv3x3-64", (2, 64, 20, 20), 64, 3),
    _conv("conv3x3-64-128-s2", (2, 64, 40, 40), 128, 3, stride=2, tier="default"),
    _conv("conv3x3-8-16", (1, 8, 32, 32), 16, 3, note="TheRock#2458: errors up to 1e4 on gfx1201"),
    _conv("conv3x3-chain-32-64", (2, 32, 64, 64), 64, 3, tier="default", note="pytorch#58123: float16 NaN on GTX 16xx"),
    _conv("conv3x3-odd", (1, 20, 33, 19), 36, 3, note="odd sizes, channels no multiple of 8"),
    _conv("conv3x3-batch8", (8, 16, 20, 20), 16, 3, tier="default"),
    _conv("depthwise3x3", (2, 64, 20, 20), 64, 3, groups=64, note="rocm-libraries#12334: float16 Winograd"),
    _conv("depthwise7x7", (2, 32, 20, 20), 32, 7, groups=32),
    _conv("grouped2", (1, 32, 20, 20), 32, 3, groups=2, note="TheRock#3026: float16 NaN on 9070 XT"),
    _conv("grouped4", (2, 64, 20, 20), 64, 3, groups=4, tier="default"),
    _conv("conv16x16-s10", (1, 3, 64, 64), 8, 16, stride=10, padding=0, note="pytorch#102968: wrong on MI250X"),
    _conv("conv-transposed2x2", (2, 32, 20, 20), 32, 2, stride=2, padding=0, operation="conv_transpose2d"),
    _conv("conv3x3-wide", (1, 3, 320, 321), 8, 3, quick=_FEW, gates=LINEAR_LONG, note="more than 100,000 pixels"),
    _conv("conv1x1-wide", (1, 8, 320, 321), 8, 1, tier="default", gates=LINEAR_LONG, note="more than 100,000 pixels"),
    _conv("wgrad-16", (16, 8, 40, 41), 16, 3, quick=_FEW, gates=LINEAR_LONG, note="a weight gradient over 26,240 places"),
    _conv("wgrad-64", (64, 16, 20, 20), 16, 1, quick=_FEW, gates=LINEAR_IMAGES, note="a weight gradient over 25,600 places"),
    _conv("conv3x3-512", (1, 512, 7, 7), 24, 3, quick=_QUICK, gates=LINEAR_LONG, note="sums of 4,608 terms"),
    _conv("conv1x1-s2", (2, 24, 21, 21), 40, 1, stride=2, padding=0, tier="default"),
    _conv("conv5x5", (2, 12, 17, 23), 20, 5, quick=_FEW),
    _conv("conv-dilated", (2, 16, 20, 20), 16, 3, dilation=2, padding=2, quick=_FEW),
    _conv("conv-bias", (2, 16, 13, 11), 21, 1, bias=True, quick=_FEW, note="the last layer of every head"),
    _conv("depthwise3x3-s2", (2, 36, 21, 19), 36, 3, groups=36, stride=2, quick=_FEW),
    _conv("conv-transposed4x4", (1, 12, 13, 9), 20, 4, stride=4, padding=0, operation="conv_transpose2d", tier="default"),
    _conv("layouts-1x1", (3, 20, 20, 23), 41, 1, bias=True, layouts=_ALL, quick=_EVERY),
    _conv("layouts-3x3", (3, 12, 10, 13), 10, 3, layouts=_ALL, quick=_EVERY),
    _conv("layouts-s2", (3, 6, 12, 15), 70, 3, stride=2, layouts=_ALL, quick=_EVERY),
    _conv("layouts-depthwise", (3, 9, 33, 36), 9, 3, groups=9, layouts=_ALL, quick=_EVERY),
    _conv("layouts-stem", (3, 3, 24, 27), 16, 6, stride=2, padding=2, layouts=_ALL, quick=_EVERY),
    _conv("layouts-grouped", (3, 12, 9, 12), 18, 3, groups=3, layouts=_ALL, quick=_EVERY),
    _conv("s2-even", (2, 8, 20, 20), 12, 3, stride=2, quick=_FEW, note="where the last row and column need no padding"),
    _conv("conv-transposed-bias", (3, 9, 7, 5), 11, 2, stride=2, padding=0, bias=True, operation="conv_transpose2d",
          layouts=_ALL, quick=_EVERY, note="mask prototypes"),
    _matmul("bmm-40", 40, 33, 17, 19, note="more than 16 products"),
    _matmul("matmul-4096", 16, 4096, 24, gates=LINEAR_LONG, note="sums of 4,096 terms"),
    _matmul("matmul-vector", 1, 333, 77, tier="default"),
    _matmul("matmul-many", 8400, 16, 4, tier="default", note="the integral of DFL"),
    _matmul("matmul-nn", 128, 256, 96),
    _matmul("matmul-nt", 128, 256, 96, transposed="nt", note="the layout of every linear layer"),
    _matmul("matmul-tn", 128, 256, 96, transposed="tn"),
    _matmul("matmul-tt", 128, 256, 96, transposed="tt", note="TheRock#7870: wrong in hipBLASLt of ROCm 6.4"),
    _matmul("bmm", 8, 200, 32, 200, note="attention"),
    _matmul("matmul-odd", 401, 77, 51, tier="default"),
    _linear("linear", layouts=("contiguous", "view"), shape=(100, 128), out=64),
    _linear("matmul-range", gates=LINEAR_RANGE, shape=(64, 64, 64), power=18,
            note="float16 in the place of float32 or TF32 has no such range"),
    _matmul("matmul-split-k", 546, 9728, 2560, tier="full", note="rocm-libraries#9055: bfloat16 leaves elements unwritten"),
    _matmul("matmul-tall", 600_000, 8, 8, tier="full", note="legacy-rocm-build#6595: garbage beyond 2^19 rows"),
)  # fmt: skip
