"""Small networks of Ultralytics' own modules, one for each task, and batches for them."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from ..hashed import HashedDraw
from ..network import GAINS, building, draw_weights
from ..recipe import Tensors

CLASSES, CATEGORIES = 5, 1003
"""Of detectors, and of classifiers."""
_BATCHES = 255
"""That BatchNorm has seen: the next one does not fit into a byte."""
KEYPOINTS = (17, 3)
Layers = list[list[Any]]

BACKBONE: Layers = [
    [-1, 1, "Conv", [24, 3, 2]],
    [-1, 1, "Conv", [40, 3, 2]],
    [-1, 1, "C3k2", [40, False, 0.5]],
    [-1, 1, "Conv", [72, 3, 2]],
    [-1, 1, "C2f", [72, True]],
    [-1, 1, "Conv", [136, 3, 2]],
    [-1, 1, "C3k2", [136, True]],
    [-1, 1, "SCDown", [256, 3, 2]],
    [-1, 1, "SPPF", [256, 5]],
    [-1, 1, "C2PSA", [256]],
]
"""Of YOLO11. Some numbers of channels are no multiple of 16 or 32, and some exceed a block."""
NECK: Layers = [
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 6], 1, "Concat", [1]],
    [-1, 1, "C3k2", [72, False]],
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 4], 1, "Concat", [1]],
    [-1, 1, "C3k2", [40, False]],
    [-1, 1, "Conv", [72, 3, 2]],
    [[-1, 12], 1, "Concat", [1]],
    [-1, 1, "C3k2", [72, False]],
]
_FROM = [15, 18, 9]
HEADS: dict[str, tuple[str, list[Any]]] = {
    "detect": ("Detect", ["nc"]),
    "segment": ("Segment", ["nc", 32, 64]),
    "pose": ("Pose", ["nc", list(KEYPOINTS)]),
    "obb": ("OBB", ["nc", 1]),
    "classify": ("Classify", ["nc"]),
}


def network_of(task: str, draw: HashedDraw) -> nn.Module:
    """Return the network of a task, in training mode, on the CPU."""
    model = copy.deepcopy(_built(task))
    draw_weights(model, draw)
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            buffer.fill_(_BATCHES)
    return model


@lru_cache(maxsize=1)
def _built(task: str) -> nn.Module:
    from ultralytics.nn import tasks

    name, arguments = HEADS[task]
    kinds = {"detect": "DetectionModel", "segment": "SegmentationModel", "pose": "PoseModel", "obb": "OBBModel",
             "classify": "ClassificationModel"}  # fmt: skip
    head: Layers = [[-1, 1, name, arguments]] if task == "classify" else [*NECK, [_FROM, 1, name, arguments]]
    count = CATEGORIES if task == "classify" else CLASSES
    layout = {"nc": count, "kpt_shape": list(KEYPOINTS), "backbone": BACKBONE, "head": head}
    with building():
        model = getattr(tasks, kinds[task])(layout, ch=3, nc=count, verbose=False)
    model.args = GAINS
    return model.train()


def batch_of(task: str, size: tuple[int, int], images: int, boxes: int, draw: HashedDraw) -> Tensors:
    """Return a batch as the loader gives it: ``boxes`` objects in each picture, one less in the last.

    Returns:
        ``img`` of shape (images, 3, height, width) in uint8, and the labels of the task in float32.
    """
    data: Tensors = {"img": draw.integers("img", images, 3, *size, below=256).to(torch.uint8)}
    if task == "classify":
        return {**data, "cls": draw.integers("cls", images, below=CATEGORIES)}
    count = images * boxes - 1
    cls = draw.integers("cls", count, 1, below=CLASSES)
    centre, extent = draw("xy", count, 2, low=0.3, high=0.7), draw("wh", count, 2, low=0.1, high=0.5)
    data |= {
        "batch_idx": torch.arange(images).repeat_interleave(boxes)[:count].float(),
        "cls": cls.float(),
        "bboxes": torch.cat([centre, extent], 1).float(),
    }
    if task == "obb":
        data["bboxes"] = torch.cat([data["bboxes"], draw("angle", count, 1, low=-0.7, high=0.7).float()], 1)
    if task == "pose":
        points = centre.unsqueeze(1) + draw("points", count, KEYPOINTS[0], 2, low=-0.2, high=0.2)
        seen = draw.integers("seen", count, KEYPOINTS[0], 1, below=3)
        data["keypoints"] = torch.cat([points, seen.double()], 2).float()
    if task == "segment":
        data["masks"] = _masks(data["bboxes"], images, boxes, (size[0] // 4, size[1] // 4))
    return data


def _masks(bboxes: Tensor, images: int, boxes: int, size: tuple[int, int]) -> Tensor:
    """Return masks in which a pixel says which box, counted from 1, it belongs to."""
    masks = torch.zeros(images, *size)
    scale = bboxes.new_tensor([size[1], size[0]])
    low, high = ((bboxes[:, :2] + sign * bboxes[:, 2:] / 2) * scale for sign in (-1, 1))
    for k, ((x, y), (right, bottom)) in enumerate(zip(low.int().tolist(), high.int().tolist(), strict=True)):
        masks[k // boxes, y:bottom, x:right] = k % boxes + 1
    return masks
