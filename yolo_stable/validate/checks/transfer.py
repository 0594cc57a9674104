"""Copies to the device and back, and changes of type."""

from __future__ import annotations

from ..check import Check
from .gates import EXACT


def _transfer(name: str, operation: str, tier: str = "quick", **params: object) -> Check:
    return Check(id=f"transfer/{name}", family="transfer", operation=operation, params=params, gates=EXACT, tier=tier)


CHECKS = (
    _transfer("round-trip", "round_trip", megabytes=2),
    _transfer("round-trip-256", "round_trip", tier="full", megabytes=256),
    _transfer("round-trip-pinned", "round_trip", tier="default", megabytes=16, pinned=True),
    _transfer("cast-float16", "cast", dtype="float16"),
    _transfer("cast-bfloat16", "cast", dtype="bfloat16"),
    _transfer("widen-float16", "widen", dtype="float16"),
    _transfer("widen-bfloat16", "widen", dtype="bfloat16"),
    _transfer("denormals", "denormals"),
)
