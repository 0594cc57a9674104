"""Ultralytics' data sets of every task and kind, small, for the tests of what is read of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from traced_data import ROWS, dataset, make_images
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import ClassificationDataset, GroundingDataset, YOLOConcatDataset, YOLOMultiModalDataset

COUNT = 24
MIX: dict[str, Any] = {"mixup": 0.3, "cutmix": 0.3, "degrees": 20.0, "flipud": 0.3}
HSV: dict[str, Any] = {"hsv_h": 0.1, "hsv_s": 0.5, "hsv_v": 0.4}


def folders_in(root: Path) -> Path:
    """Return images in a folder for each class, for classification."""
    images = make_images(root / "set", COUNT)
    for index, path in enumerate(sorted(images.glob("*.png"))):
        place = root / "train" / f"class{index % 3}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place / path.name)
    return root / "train"


def hyp() -> Any:
    return get_cfg(overrides={"mode": "train", **MIX})


def kinds_of(boxes: Path, folders: Path, shapes: Callable[..., str], tmp_path: Path) -> dict[str, Callable[[], Any]]:
    """Return a maker of a data set for each task and class of data sets."""

    def of_shapes(task: str, **changes: Any) -> Any:
        data = yaml.safe_load(Path(shapes(task)).read_text())
        images = Path(data["path"]) / data["train"]
        extra = {key: data[key] for key in ("kpt_shape", "flip_idx") if key in data}
        return dataset(images, task, names=4, imgsz=64, data=extra, augmentations=None, **{**HSV, **changes})

    def depth() -> Any:
        root = tmp_path / "depth_set"
        if not root.exists():
            make_images(root, 8)
            (root / "depth").mkdir()
            for n, path in enumerate(sorted((root / "images").glob("*.png"))):
                shape = size_of(path)
                np.save(root / "depth" / f"{path.stem}.npy", np.full(shape, 1.0 + n, np.float32))
        return dataset(root / "images", "depth", names=1, **HSV)

    def masks() -> Any:
        root = tmp_path / "mask_set"
        if not root.exists():
            make_images(root, 8)
            (root / "masks").mkdir()
            for n, path in enumerate(sorted((root / "images").glob("*.png"))):
                shape = size_of(path)
                cv2.imwrite(str(root / "masks" / path.name), np.full(shape, n % 3, np.uint8))
        return dataset(root / "images", "semantic", names=3, data={"masks_dir": "masks"}, **HSV, **MIX)

    def grounding() -> Any:
        return GroundingDataset(
            img_path=str(boxes), json_file=str(_grounding_file(boxes, tmp_path)), imgsz=96, batch_size=4,
            hyp=hyp(), prefix="",
        )  # fmt: skip

    def texts() -> Any:
        names = {n: f"name {n}/word {n}" for n in range(COUNT * ROWS)}
        data = {"names": names, "nc": len(names), "channels": 3}
        return YOLOMultiModalDataset(img_path=str(boxes), data=data, imgsz=96, batch_size=4, prefix="", hyp=hyp())

    return {
        "detect": lambda: of_shapes("detect", **MIX),
        "segment": lambda: of_shapes("segment", copy_paste=0.5, **MIX),
        "segment, apart": lambda: of_shapes(
            "segment", overlap_mask=False, copy_paste=0.5, copy_paste_mode="mixup", **MIX
        ),
        "pose": lambda: of_shapes("pose", **MIX),
        "obb": lambda: of_shapes("obb", **MIX),
        "rectangles": lambda: dataset(boxes, rect=True, **HSV, **MIX),
        "cache in memory": lambda: dataset(boxes, cache="ram", **HSV, **MIX),
        "rtdetr": lambda: dataset(boxes, "rtdetr", **HSV, **MIX),
        "validation": lambda: dataset(boxes, mode="val"),
        "polygons": lambda: _polygons(shapes),
        "masks": masks,
        "depth": depth,
        "grounding": grounding,
        "texts": texts,
        "joined": lambda: YOLOConcatDataset([dataset(boxes, **HSV, **MIX), dataset(boxes, mosaic=0.0)]),
        "classify": lambda: classes_in(folders),
    }


def size_of(path: Path) -> tuple[int, int]:
    image: Any = cv2.imread(str(path))
    return image.shape[:2]


def _polygons(shapes: Callable[..., str]) -> Any:
    data = yaml.safe_load(Path(shapes("segment")).read_text())
    return dataset(Path(data["path"]) / data["train"], "semantic", names=4, imgsz=64, copy_paste=0.5, **HSV, **MIX)


def classes_in(folders: Path, **changes: Any) -> ClassificationDataset:
    args: Any = get_cfg(overrides={"imgsz": 32, "task": "classify", **changes})
    return ClassificationDataset(str(folders), args, augment=True, prefix="train")


def _grounding_file(boxes: Path, folder: Path) -> Path:
    images, notes = [], []
    for n, path in enumerate(sorted(boxes.glob("*.png"))):
        height, width = size_of(path)
        images.append({"id": n, "height": height, "width": width, "file_name": path.name, "caption": f"a{n} b{n}"})
        for row in range(2):
            box = [5 + 20 * row, 10, 15, 20]
            notes.append({"image_id": n, "iscrowd": 0, "bbox": box, "tokens_positive": [[0, 2 + 2 * row]]})
    file = folder / "grounding.json"
    file.write_text(json.dumps({"images": images, "annotations": notes}))
    return file


KINDS = (
    "detect", "segment", "segment, apart", "pose", "obb", "rectangles", "cache in memory", "rtdetr", "validation",
    "polygons", "masks", "depth", "grounding", "texts", "joined", "classify",
)  # fmt: skip
