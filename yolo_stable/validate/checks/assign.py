"""The assignment of boxes to anchors, and the detection loss: Ultralytics' own code on frozen tensors."""

from __future__ import annotations

from functools import partial

from ..check import check_of
from .gates import ASSIGN, ASSIGN_TINY

_assign = partial(check_of, "assign", gates=ASSIGN, size=160, images=3, classes=5)

CHECKS = (
    _assign("assigner", boxes=6),
    _assign("assigner-crowd", "assigner", boxes=40, tier="default", note="anchors that several boxes want"),
    _assign("assigner-tiny", "assigner", boxes=6, tiny=True, gates=ASSIGN_TINY, note="boxes smaller than a stride"),
    _assign("loss", boxes=6),
    _assign("loss-crowd", "loss", boxes=40, tier="default"),
    _assign("loss-without-boxes", "loss", boxes=0, note="images without labels"),
)
