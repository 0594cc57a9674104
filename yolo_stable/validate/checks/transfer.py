"""Copies to the device and back, and changes of type."""

from __future__ import annotations

from functools import partial

from ..check import check_of
from .gates import EXACT

_transfer = partial(check_of, "transfer", gates=EXACT)

CHECKS = (
    _transfer("round-trip", "round_trip", megabytes=2),
    _transfer("round-trip-256", "round_trip", tier="full", megabytes=256),
    _transfer("round-trip-pinned", "round_trip", tier="default", megabytes=16, pinned=True),
    _transfer("cast-float16", "cast", dtype="float16"),
    _transfer("cast-bfloat16", "cast", dtype="bfloat16"),
    _transfer("widen-float16", "widen", dtype="float16"),
    _transfer("widen-bfloat16", "widen", dtype="bfloat16"),
    _transfer("denormals"),
)
