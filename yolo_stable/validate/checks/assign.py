"""The assignment of boxes to anchors, and the detection loss: Ultralytics' own code on frozen tensors."""

from __future__ import annotations

from typing import Any

from ..check import Check
from .gates import ASSIGN, ASSIGN_TINY


def _assign(name: str, operation: str, *, tier: str = "quick", note: str = "", **params: Any) -> Check:
    return Check(
        id=f"assign/{name}", family="assign", operation=operation, params={"size": 160, "images": 3, "classes": 5, **params},
        gates=ASSIGN_TINY if params.get("tiny") else ASSIGN, tier=tier, note=note,
    )  # fmt: skip


CHECKS = (
    _assign("assigner", "assigner", boxes=6),
    _assign("assigner-crowd", "assigner", boxes=40, tier="default", note="anchors that several boxes want"),
    _assign("assigner-tiny", "assigner", boxes=6, tiny=True, note="boxes smaller than a stride"),
    _assign("loss", "loss", boxes=6),
    _assign("loss-crowd", "loss", boxes=40, tier="default"),
    _assign("loss-without-boxes", "loss", boxes=0, note="images without labels"),
)
