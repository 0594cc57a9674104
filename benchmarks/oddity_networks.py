"""Networks of a few thousand weights for every task, so that a hundred steps take seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

BACKBONE: list[list[Any]] = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
]
HEADS: dict[str, list[Any]] = {
    "detect": [[2, 3], 1, "Detect", ["nc"]],
    "segment": [[2, 3], 1, "Segment", ["nc", 8, 16]],
    "pose": [[2, 3], 1, "Pose", ["nc", [4, 3]]],
    "obb": [[2, 3], 1, "OBB", ["nc", 1]],
    "classify": [-1, 1, "Classify", ["nc"]],
    # classes, width, queries, sampling points, heads, layers, width of the feed-forward part
    "rtdetr": [[2, 3], 1, "RTDETRDecoder", ["nc", 32, 20, 2, 2, 1, 64]],
    "end2end": [[2, 3], 1, "Detect", ["nc"]],
}
"""By task; ``end2end`` is a detector with YOLO26's pair of heads and its loss schedule."""


def small_network(folder: Path, kind: str) -> Path:
    """Write the YAML of a network and return its path.

    Args:
        folder: Where to.
        kind: A key of :data:`HEADS`.
    """
    content: dict[str, Any] = {"nc": 2, "scales": {"n": [1.0, 1.0, 1024]}, "backbone": BACKBONE, "head": [HEADS[kind]]}
    if kind == "end2end":
        content |= {"end2end": True, "reg_max": 1}
    if kind == "pose":
        content["kpt_shape"] = [4, 3]
    path = folder / f"small-{kind}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path
