"""Sample of images, drawn through Ultralytics' own pipeline with the conservative augmentation: what training will see."""

from __future__ import annotations

import logging
import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._shared.text import listed
from ..augment import conservative
from .files import label_path
from .finding import DataFinding, Severity
from .folders import class_of
from .layout import Layout
from .rules import found

IMGSZ = 160
"""Pixels a side: what is checked does not depend on it."""
BATCH = 16
SEED = 0
_EDGE = 1e-4
"""Tolerance of boxes after float32 arithmetic."""


def check_sample(
    layout: Layout, images: Mapping[str, Sequence[str]], findings: Sequence[DataFinding], size: int
) -> list[DataFinding]:
    """Augment some training images and look at what comes out.

    Ultralytics rewrites damaged images and leaves caches behind, so it gets copies in a temporary folder.

    Args:
        layout: The data set.
        images: Paths by split.
        findings: What is known already; images with errors are not drawn.
        size: Number of images, evenly spread.
    """
    bad = {finding.image for finding in findings if finding.severity is Severity.ERROR}
    good = [image for image in images.get("train", ()) if image not in bad]
    if layout.task != "classify":
        good = [image for image in good if os.path.isfile(label_path(image))]
    if not good or not layout.names or sorted(layout.names) != list(range(len(layout.names))) or layout.task is None:
        return []
    step = max(len(good) // size, 1)
    chosen = good[::step][:size]
    with tempfile.TemporaryDirectory(prefix="yolo-stable-check-") as folder, _quiet(), _same_random_numbers():
        try:
            origin = _copy(chosen, layout, Path(folder))
            dataset = _classified(layout, folder) if layout.task == "classify" else _detected(layout, folder)
        except Exception as error:  # noqa: BLE001 - whatever Ultralytics says is the finding
            return [
                found("augment-failed", layout.place, f"the pipeline cannot be built: {type(error).__name__}: {error}")
            ]
        return list(_draw(dataset, origin, layout))


def _draw(dataset: Any, origin: Mapping[str, str], layout: Layout) -> Iterator[DataFinding]:
    collate = getattr(dataset, "collate_fn", None)
    items: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        image = origin[dataset.samples[index][0] if layout.task == "classify" else dataset.im_files[index]]
        try:
            item = dataset[index]
        except Exception as error:  # noqa: BLE001 - whatever it is, training would end with it
            yield found("augment-failed", image, f"{type(error).__name__}: {error}", image=image)
            continue
        items.append(item)
        yield from _judge(item, image, len(layout.names))
    for at in range(0, len(items) if collate else 0, BATCH):
        try:
            collate(items[at : at + BATCH])  # pyright: ignore[reportOptionalCall]
        except Exception as error:  # noqa: BLE001 - as above
            files = listed(origin[item["im_file"]] for item in items[at : at + BATCH])
            yield found("augment-failed", layout.place, f"no batch can be made of {files}: {error}")


def _judge(item: Mapping[str, Any], image: str, classes: int) -> Iterator[DataFinding]:
    """Judge one augmented image: ``img`` (3, H, W) of any type, ``bboxes`` (N, 4) float32 in fractions."""
    pixels = item["img"].float()
    wrong = int((~pixels.isfinite()).sum())
    if wrong:
        yield found("augment-not-finite", image, f"{wrong} of {pixels.numel()} values are NaN or Inf", image=image)
    boxes = item.get("bboxes")
    if boxes is None or not len(boxes):
        return
    boxes = boxes[:, :4]
    legal = (boxes >= -_EDGE) & (boxes <= 1 + _EDGE)  # NaN is neither
    legal[:, 2:] &= boxes[:, 2:] > 0
    if not bool(legal.all()):
        box = boxes[~legal.all(1)][0].tolist()
        yield found("augment-box", image, f"box {box} after augmentation; allowed: 0 to 1, with a size", image=image)
    cls = item["cls"]
    if len(cls) and not bool(((cls >= 0) & (cls < classes)).all()):
        yield found("augment-box", image, f"class beyond 0 to {classes - 1} after augmentation", image=image)


def _copy(chosen: Sequence[str], layout: Layout, folder: Path) -> dict[str, str]:
    """Copy images, labels and arrays, and return where each copy comes from."""
    origin: dict[str, str] = {}
    for number, image in enumerate(chosen):
        name = f"{number:05d}{os.path.splitext(image)[1].lower()}"
        if layout.task == "classify":
            label = class_of(image, layout.splits["train"][0]) or ""
            target = folder / "train" / label / name
        else:
            target = folder / "images" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(image, target)
        array = Path(image).with_suffix(".npy")
        if array.is_file():
            shutil.copy2(array, target.with_suffix(".npy"))
        label_file = label_path(image)
        if layout.task != "classify" and os.path.isfile(label_file):
            (folder / "labels").mkdir(exist_ok=True)
            shutil.copy2(label_file, folder / "labels" / f"{number:05d}.txt")
        origin[str(target)] = image
    return origin


def _detected(layout: Layout, folder: str) -> Any:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset

    data: dict[str, Any] = {"names": layout.names, "nc": len(layout.names)}
    data["channels"] = layout.channels
    if layout.keypoints[0]:
        data["kpt_shape"] = list(layout.keypoints)
        data["flip_idx"] = layout.description.get("flip_idx") or []
    hyp = get_cfg(overrides={"task": layout.task, "augmentations": conservative(), "imgsz": IMGSZ})
    images = str(Path(folder, "images"))
    return YOLODataset(
        img_path=images, data=data, task=layout.task or "detect", imgsz=IMGSZ, augment=True, hyp=hyp, batch_size=BATCH
    )


def _classified(layout: Layout, folder: str) -> Any:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import ClassificationDataset

    args: Any = get_cfg(overrides={"task": "classify", "imgsz": IMGSZ})
    return ClassificationDataset(str(Path(folder, "train")), args, augment=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Ultralytics while it scans."""
    from ultralytics.utils import LOGGER  # sets its level when it is imported

    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)  # its progress bars ask for this level too
    try:
        yield
    finally:
        LOGGER.setLevel(level)


@contextmanager
def _same_random_numbers() -> Iterator[None]:
    """Draw the same sample each time, and restore the caller's generators."""
    import torch

    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        random.seed(SEED)
        np.random.seed(SEED)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)
