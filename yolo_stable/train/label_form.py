"""Label form: whether the labels of a data set can be those of a task, told by a few of them."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ultralytics.data.utils import IMG_FORMATS, img2label_paths

from ..errors import InvalidCallError
from .words import WHERE

OUTLINED = {"segment": "outlines", "obb": "corners"}
"""Tasks whose labels have more than a box, and what; where a row has none, Ultralytics trains on none of them."""
OF_A_BOX = 5
"""Numbers in a row that is a box: class, centre, width and height."""
LOOKED_AT, IMAGES = 50, 1000
"""Label files with rows, and images, that are looked at."""


def require_fitting_labels(data: str, found: Mapping[str, Any], task: str) -> None:
    """Refuse labels that are boxes alone where the task needs more.

    Args:
        data: As given, for the message.
        found: The data set, as Ultralytics has read it.
        task: Of the model.

    Raises:
        InvalidCallError: None of the first label files has what the task needs.
    """
    if task not in OUTLINED:
        return
    files = list(itertools.islice(_with_rows(found.get("train")), LOOKED_AT))
    if files and all(len(row) == OF_A_BOX for rows in files for row in rows):
        raise InvalidCallError(
            f"{WHERE}: data set {data}: its labels are boxes, and a model for task={task} needs {OUTLINED[task]} (looked at:"
            f" {len(files)} label files). Give a model for detection, such as yolo26n.pt, or other labels."
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
