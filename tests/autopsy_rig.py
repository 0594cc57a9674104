"""Batches with a known fault, for the tests of the autopsy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolo_stable.autopsy.batch_case import BatchCase
from yolo_stable.autopsy.case import TensorCase

IMGSZ = 64


@dataclass(frozen=True)
class Source:
    """As in ``provenance.py``."""

    path: str
    index: int
    region: tuple[tuple[float, float], ...] | None
    how: str = "mosaic"
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Provenance:
    """As in ``provenance.py``, of rectangles."""

    sources: tuple[Source, ...]
    rows: tuple[tuple[int, int] | None, ...] = ()
    size: tuple[int, int] = (IMGSZ, IMGSZ)

    def tile(self, n: int) -> list[float] | None:
        region = self.sources[n].region
        if not region:
            return None
        xs, ys = zip(*region, strict=True)
        return [min(xs), min(ys), max(xs), max(ys)]

    def at(self, x: float, y: float) -> tuple[Source, ...]:
        found = []
        for n, source in enumerate(self.sources):
            tile = self.tile(n)
            if tile and tile[0] <= x + 0.5 < tile[2] and tile[1] <= y + 0.5 < tile[3]:
                found.append(source)
        return tuple(found)


def mosaic(number: int, rows: tuple[tuple[int, int] | None, ...] = ()) -> Provenance:
    """Four files in four quarters, the first in the upper left: indices 10 * number and on."""
    half = IMGSZ / 2
    corners = [(0.0, 0.0), (half, 0.0), (0.0, half), (half, half)]
    sources = tuple(
        Source(
            f"data/img_{10 * number + n:03d}.jpg",
            10 * number + n,
            ((x, y), (x + half, y), (x + half, y + half), (x, y + half)),
        )
        for n, (x, y) in enumerate(corners)
    )
    return Provenance(sources, rows)


def _square(x: float, y: float, side: float) -> tuple[tuple[float, float], ...]:
    return (x, y), (x + side, y), (x + side, y + side), (x, y + side)


def classifier(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


def cross_entropy(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
    loss = nn.functional.cross_entropy(model(batch[0]), batch[1])
    return loss, {"loss": loss.detach()}


def tensor_case(
    model: nn.Module | None = None, size: int = 8, forward: Callable[..., Any] = cross_entropy
) -> TensorCase:
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(size, 3, 16, 16, generator=generator)
    return TensorCase(model or classifier(), (images, torch.arange(size) % 4), forward)


def run(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
    """Run an Ultralytics model as its trainer does without AMP."""
    loss, items = model(batch)
    return loss.sum(), items


def boxes(sizes: tuple[int, ...], columns: int = 4, seed: int = 5) -> dict[str, Any]:
    """A batch of images with so many labels each."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(sizes)
    centre = torch.rand(count, 2, generator=generator) * 0.5 + 0.25
    extent = torch.rand(count, 2, generator=generator) * 0.3 + 0.1
    turn = torch.rand(count, columns - 4, generator=generator)
    return {
        "img": torch.rand(len(sizes), 3, IMGSZ, IMGSZ, generator=generator),
        "cls": torch.randint(0, 4, (count, 1), generator=generator).float(),
        "bboxes": torch.cat((centre, extent, turn), 1),
        "batch_idx": torch.cat([torch.full((n,), float(i)) for i, n in enumerate(sizes)]),
        "im_file": tuple(f"data/img_{i:03d}.jpg" for i in range(len(sizes))),
    }


def network(path: str, task: str = "detect", seed: int = 0) -> nn.Module:
    """A narrow Ultralytics network for a task, ready to train."""
    from ultralytics.cfg import get_cfg
    from ultralytics.nn import tasks

    kinds = {
        "segment": "SegmentationModel",
        "pose": "PoseModel",
        "obb": "OBBModel",
        "classify": "ClassificationModel",
        "rtdetr": "RTDETRDetectionModel",
    }
    torch.manual_seed(seed)
    model: Any = getattr(tasks, kinds.get(task, "DetectionModel"))(path, verbose=False).train()
    model.args, model.nc = get_cfg(), 4
    return model


def box_case(model: nn.Module, sizes: tuple[int, ...] = (2, 1, 3, 2), **options: Any) -> BatchCase:
    return BatchCase(model, boxes(sizes), run, classes=4, **options)
