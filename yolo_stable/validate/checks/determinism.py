"""Repetitions: at once, with other dirt in memory, and while the device is busy with something else."""

from __future__ import annotations

from functools import partial

from ..check import TIERS, check_of
from . import linear, step
from .gates import DETERMINISM

_repeat = partial(check_of, "determinism", gates=DETERMINISM)

CHECKS = tuple(
    _repeat(of.partition("/")[2], "repeat", of=of, listed=listed, tier=tier, note=note)
    for of, tier, listed, note in (
        ("linear/conv3x3-64", "quick", False, "pytorch#196164: varies under contention on gfx1101"),
        ("linear/conv1x1-128-64", "quick", False, ""),
        ("linear/conv-stem", "default", False, ""),
        ("linear/depthwise3x3", "default", False, ""),
        ("linear/conv-transposed2x2", "default", False, ""),
        ("linear/matmul-nt", "quick", False, ""),
        ("linear/bmm", "default", False, ""),
        ("norm/bn-train", "quick", False, ""),
        ("attention/sdpa-math", "default", False, ""),
        ("attention/sdpa-32", "quick", True, "memory-efficient attention is on torch's list"),
        ("attention/grid-sample-zeros", "default", True, "backward by atomic additions, on torch's list"),
        ("elementwise/index-put-accumulate", "quick", False, ""),
        ("elementwise/scatter-add", "default", True, "on torch's list"),
        ("elementwise/cumsum", "default", True, "on torch's list"),
        ("elementwise/maxpool", "default", True, "backward is on torch's list"),
        ("elementwise/upsample", "default", True, "backward is on torch's list"),
        ("assign/loss", "default", False, ""),
    )
)  # fmt: skip

STRESS = tuple(
    _repeat(
        f"stress-{of.id.partition('/')[2]}-{dtype}", "repeat", of=of.id, dtype=dtype, stress=True, listed=of.family == "step",
        tier=of.tier,
    )
    for of in (*(check for check in linear.CHECKS if check.tier != TIERS[-1]), *step.CHECKS)
    for dtype in ("float32", "float16", "bfloat16")
)  # fmt: skip
"""What ``--stress`` repeats: convolutions, products, and whole steps, which have operations on torch's list."""
