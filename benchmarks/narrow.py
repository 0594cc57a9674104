"""A detector narrow enough to be trained in seconds, and trained until losing what it knows would show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_stable.data.builtin import make

IMAGES, BATCH = 128, 8
BATCHES = IMAGES // BATCH
"""Batches, and optimizer steps, of an epoch."""

NETWORK = {
    "nc": 4,
    "scales": {"n": [1.0, 1.0, 1024]},
    "backbone": [
        [-1, 1, "Conv", [8, 3, 2]],
        [-1, 1, "Conv", [16, 3, 2]],
        [-1, 1, "C3k2", [32, False, 0.25]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "C3k2", [32, False, 0.25]],
        [-1, 1, "Conv", [32, 3, 2]],
        [-1, 1, "SPPF", [32, 5]],
    ],
    "head": [
        [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
        [[-1, 4], 1, "Concat", [1]],
        [-1, 1, "C3k2", [32, False]],
        [-1, 1, "Conv", [32, 3, 2]],
        [[-1, 6], 1, "Concat", [1]],
        [-1, 1, "C3k2", [32, True]],
        [[9, 12], 1, "Detect", ["nc"]],
    ],
}
HEADS: dict[str, list[Any]] = {
    "detect": ["Detect", ["nc"]],
    "segment": ["Segment", ["nc", 8, 16]],
    "pose": ["Pose", ["nc", [4, 3]]],
    "obb": ["OBB", ["nc", 1]],
    # classes, width, queries, sampling points, heads, layers, width of the feed-forward part
    "rtdetr": ["RTDETRDecoder", ["nc", 32, 20, 2, 2, 1, 64]],
}
"""Last layer of the network of each task, on layers 9 and 12."""
"""YOLO11's layers at an eighth of the smallest width, strides 8 and 16."""


def settings(folder: Path, images: int = IMAGES, **changes: Any) -> dict[str, Any]:
    """Return trainer overrides: shapes of 64 px, AdamW, a step after every batch, on the CPU.

    Args:
        folder: For the data set, the network's YAML and the runs.
        images: Of the training set.
        **changes: Further overrides.
    """
    network = folder / "narrow.yaml"
    if not network.exists():
        network.write_text(yaml.safe_dump(NETWORK), encoding="utf-8")
    common = {
        "model": str(network),
        "data": str(make("shapes", cache=folder, train=images, val=32, imgsz=64)),
        "imgsz": 64,
        "batch": BATCH,
        "nbs": BATCH,
        "optimizer": "AdamW",
        "mosaic": 0.0,
        "amp": False,
        "device": "cpu",
        "workers": 0,
        "plots": False,
        "verbose": False,
        "project": str(folder),
        "exist_ok": True,
    }
    return {**common, **changes}


def trained(folder: Path, epochs: int, images: int = IMAGES) -> Path:
    """Train from scratch with stock Ultralytics and return the best checkpoint; 30 epochs find most of the figures."""
    start = {"lr0": 0.004, "warmup_epochs": 1, "warmup_bias_lr": 0.01, "epochs": epochs, "name": "trained"}
    trainer = DetectionTrainer(overrides=settings(folder, images, **start))
    trainer.train()
    return trainer.best
