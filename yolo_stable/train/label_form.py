"""Label form: whether the labels of a data set can be those of a task."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ultralytics.data.utils import IMG_FORMATS, img2label_paths

from ..errors import InvalidCallError
from .words import WHERE

OUTLINED = {"segment": "outlines", "obb": "corners", "semantic": "outlines or masks"}
"""Tasks whose labels have more than a box, and what; where a row has none, Ultralytics trains on none of them."""
OF_A_BOX = 5
"""Numbers in a row that is a box: class, centre, width and height."""
LOOKED_AT, IMAGES = 50, 1000
"""Label files with rows, and images, that are looked at."""


def require_fitting_labels(data: str, found: Mapping[str, Any], task: str) -> None:
    """Refuse labels that are boxes alone where the task needs more, and images of which none has a mask or a depth map.

    Args:
        data: As given, for the message.
        found: The data set, as Ultralytics has read it.
        task: Of the model.

    Raises:
        InvalidCallError: None of the first label files, or no image, has what the task needs.
    """
    mapped = _MAPS.get(task)
    if mapped is not None and (task == "depth" or found.get("masks_dir")):
        _require_a_map(data, found, *mapped)
        return
    if task not in OUTLINED:
        return
    files = list(itertools.islice(_with_rows(found.get("train")), LOOKED_AT))
    if files and all(len(row) == OF_A_BOX for rows in files for row in rows):
        raise InvalidCallError(
            f"{WHERE}: data set {data}: its labels are boxes, and a model for task={task} needs {OUTLINED[task]} (looked at:"
            f" {len(files)} label files). Give a model for detection, such as yolo26n.pt, or other labels."
        )


def _masks_of(image: str, found: Mapping[str, Any]) -> list[str]:
    """Return where the mask of an image is, as Ultralytics' ``SemanticDataset`` does."""
    return img2label_paths([image], label_dir=found["masks_dir"], suffix=".png")


def _depths_of(image: str, found: Mapping[str, Any]) -> list[str]:
    """Return where the depth map of an image may be, as Ultralytics' ``DepthDataset`` does."""
    return [img2label_paths([image], label_dir="depth", suffix=suffix)[0] for suffix in (".png", ".npy")]


_MAPS: dict[str, tuple[str, Callable[[str, Mapping[str, Any]], list[str]]]] = {
    "semantic": ("mask", _masks_of),
    "depth": ("depth map", _depths_of),
}
"""What the labels of a task are, and where that of an image is."""


def _require_a_map(
    data: str, found: Mapping[str, Any], what: str, places_of: Callable[[str, Mapping[str, Any]], list[str]]
) -> None:
    places = found.get("train")
    first = None
    for image in _images(places if isinstance(places, list) else [places or ""]):
        wanted = places_of(image, found)
        if any(map(os.path.isfile, wanted)):
            return
        first = first or wanted[0]
    if first is not None:
        raise InvalidCallError(
            f"{WHERE}: data set {data}: no image has a {what}; that of the first would be {first}. Put them there, or give a"
            " model for another task."
        )


def _with_rows(places: Any) -> Iterator[list[list[str]]]:
    """Yield the rows of label files that have some."""
    images = itertools.islice(_images(places if isinstance(places, list) else [places or ""]), IMAGES)
    for image in images:
        (label,) = img2label_paths([image])
        if os.path.isfile(label):
            rows = [row.split() for row in Path(label).read_text(encoding="utf-8", errors="replace").splitlines()]
            if rows := [row for row in rows if row]:
                yield rows


def _images(places: list[Any]) -> Iterator[str]:
    """Yield image files below folders."""
    for place in places:
        if os.path.isdir(place):
            for file in glob.iglob(os.path.join(glob.escape(str(place)), "**", "*.*"), recursive=True):
                if file.rpartition(".")[-1].lower() in IMG_FORMATS:
                    yield file
