"""Operations of the assign family: the real assigner and the real loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..hashed import HashedDraw
from ..network import GAINS, default_dtype
from ..recipe import Recipe, Tensors

STRIDES = (8, 16, 32)


def targets(params: Mapping[str, Any], draw: HashedDraw) -> Tensors:
    """Return labels as the loader gives them: batch_idx, cls, bboxes (x, y, w, h between 0 and 1), for each image as many."""
    count, images = params["boxes"], params["images"]
    low, high = (0.01, 0.03) if params.get("tiny") else (0.1, 0.5)
    size = draw("wh", images * count, 2, low=low, high=high)
    centre = draw("xy", images * count, 2, low=0.25, high=0.75)
    return {
        "batch_idx": torch.arange(images).repeat_interleave(count).double(),
        "cls": draw.integers("cls", images * count, 1, below=params["classes"]).double(),
        "bboxes": torch.cat([centre, size], 1),
    }


def _anchors(size: int) -> tuple[Tensor, list[tuple[int, int]]]:
    shapes = [(size // s, size // s) for s in STRIDES]
    points = []
    for stride, (h, w) in zip(STRIDES, shapes, strict=True):
        y, x = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        points.append(torch.stack([x, y], -1).view(-1, 2).double() * stride)
    return torch.cat(points), shapes


def assigner(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return TaskAlignedAssigner on predictions scattered around the anchors."""
    from ultralytics.utils.tal import TaskAlignedAssigner

    images, count, classes, size = (params[name] for name in ("images", "boxes", "classes", "size"))
    points, _ = _anchors(size)
    labels = targets(params, draw)
    boxes = labels["bboxes"].view(images, count, 4) * size
    half = draw("half", images, len(points), 2, low=4, high=50)
    centre = points + draw("shift", images, len(points), 2, low=-6, high=6)
    inputs = {
        "scores": draw("scores", images, len(points), classes, low=0.02, high=0.98),
        "predicted": torch.cat([centre - half, centre + half], -1),
        "points": points,
        "classes": labels["cls"].view(images, count, 1).long(),
        "boxes": torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1),
        "mask": torch.ones(images, count, 1, dtype=torch.bool),
    }
    inputs["mask"][-1, count // 2 :] = False  # padding, as in a batch of unequal images

    def compute(
        scores: Tensor, predicted: Tensor, points: Tensor, classes: Tensor, boxes: Tensor, mask: Tensor
    ) -> Tensors:
        rule = TaskAlignedAssigner(topk=10, num_classes=params["classes"], alpha=0.5, beta=6.0, stride=list(STRIDES))
        with default_dtype(scores.dtype if scores.dtype == torch.float64 else torch.float32):
            labels, found, target, positive, which = rule(
                scores, predicted, points, classes, boxes, mask.to(scores.dtype)
            )
        positive = positive.bool()
        return {
            "positives": positive.sum(-1),
            "positive": positive,
            "scores": target,
            "scores_sum": target.sum().view(1),
            "boxes": found * positive.unsqueeze(-1),
            "which": which * positive,
            "labels": labels * positive,
        }

    return Recipe(inputs=inputs, compute=compute)


class _Network(nn.Module):
    """The part of a detector that its loss needs."""

    def __init__(self, classes: int, like: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(like.new_zeros(1))
        self.args = GAINS
        head = nn.Module()
        head.stride, head.nc, head.reg_max = like.new_tensor(STRIDES), classes, 16  # type: ignore[assignment]
        head.no = classes + 64  # type: ignore[assignment]
        self.model = nn.ModuleList([head])


def loss(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return v8DetectionLoss with its gradients by boxes and scores."""
    from ultralytics.utils.loss import v8DetectionLoss

    images, classes, size = params["images"], params["classes"], params["size"]
    points, shapes = _anchors(size)
    labels = targets(params, draw)
    inputs = {
        "boxes": draw("boxes", images, 64, len(points), low=-3, high=3),
        "scores": draw("scores", images, classes, len(points), low=-4, high=2),
        **labels,
    }

    def compute(boxes: Tensor, scores: Tensor, batch_idx: Tensor, cls: Tensor, bboxes: Tensor) -> Tensors:
        with default_dtype(scores.dtype if scores.dtype == torch.float64 else torch.float32):
            criterion = v8DetectionLoss(_Network(classes, scores))
            features = [scores.new_zeros(images, 1, h, w) for h, w in shapes]
            batch = {"batch_idx": batch_idx, "cls": cls, "bboxes": bboxes}
            predicted: dict[str, Any] = {"boxes": boxes, "scores": scores, "feats": features}
            total, _ = criterion(predicted, batch)
        return {"loss": total}

    return Recipe(inputs=inputs, compute=compute, gradients=("boxes", "scores"))


RECIPES = {"assigner": assigner, "loss": loss}
