"""Data sets in which every image has a colour, and every label row a class, that no other has; for the tests of tracing."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.rtdetr.val import RTDETRDataset

GREY = 114
ROWS = 5
"""Most label rows of an image."""
SIZES = ((96, 64), (64, 96), (80, 80), (128, 96), (60, 100), (150, 70))


def colour(index: int) -> tuple[int, int, int]:
    """Return the colour (red, green, blue) of an image; none is near another or grey."""
    return 20 + 60 * (index % 4), 25 + 70 * (index // 4 % 4), 250 - 110 * (index // 16)


def make_images(folder: Path, count: int, *, segments: bool = False, grid: bool = True) -> Path:
    """Write images of one colour each, and labels of small boxes; with ``segments``, of triangles. Returns the images' folder."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index in range(count):
        width, height = SIZES[index % len(SIZES)]
        image = np.empty((height, width, 3), np.uint8)
        image[:] = colour(index)[::-1]
        cv2.imwrite(str(folder / "images" / f"{index:03}.png"), image)
        lines = []
        for row in range(1 + index % ROWS):
            x, y = 0.15 + 0.17 * row, 0.2 + 0.6 * ((index + row) % 3) / 2
            w, h = 0.1 + 0.01 * row, 0.12
            corners = (x - w / 2, y - h / 2, x + w / 2, y - h / 2, x, y + h / 2)
            numbers = corners if segments else (x, y, w, h)
            lines.append(" ".join(f"{n:.5f}" for n in (index * ROWS + row, *numbers)))
        lines = [line.replace(".00000", "", 1) for line in lines]
        (folder / "labels" / f"{index:03}.txt").write_text("\n".join(lines) + "\n")
    return folder / "images"


def dataset(images: Path, task: str = "detect", *, mode: str = "train", names: int = 400, **changes: Any) -> Any:
    """Return Ultralytics' data set for a task, without colour augmentations. ``rtdetr`` is a task here."""
    kind = "detect" if task == "rtdetr" else task
    plain = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "imgsz": 96, "task": kind, "mode": "train"}
    batch = changes.pop("batch", 4)
    data = {"names": {n: str(n) for n in range(names)}, "nc": names, "channels": 3, **changes.pop("data", {})}
    augmentations = changes.pop("augmentations", [])
    cfg: Any = get_cfg(overrides={**plain, **changes})
    cfg.augmentations = augmentations  # the defaults blur now and then
    if task == "rtdetr":
        return RTDETRDataset(
            img_path=str(images), imgsz=cfg.imgsz, batch_size=batch, augment=True, hyp=cfg, data=data, prefix=""
        )
    return build_yolo_dataset(cfg, str(images), batch, data, mode=mode, rect=cfg.rect, stride=32)


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def generators() -> list[Any]:
    """Return the states of all generators that a pipeline draws from."""
    numpy = [v.tolist() if isinstance(v, np.ndarray) else v for v in np.random.get_state(legacy=True)]
    return [random.getstate(), numpy, torch.get_rng_state().tolist()]


def samples(data: Any, indices: range, number: int) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return samples drawn with a seed, and the generators behind them."""
    seed(number)
    return [data[index] for index in indices], generators()


def close_mosaic(data: YOLODataset) -> None:
    cfg: Any = get_cfg(overrides={"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0})
    data.close_mosaic(hyp=cfg)
