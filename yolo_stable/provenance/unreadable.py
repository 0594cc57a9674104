"""Unreadable images: whether a file, or what belongs to it, can be used, and why not.

Asked only after a sample has failed: the answer decides whether an image is left out or an error is raised as somebody else's. So
each question goes to the file itself, not to the error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from ultralytics.data.utils import read_mask
from ultralytics.utils.patches import imread

OTHERS = 8
"""Images whose labels are looked at to learn what labels look like in a data set."""


class Problem(IntEnum):
    """Why an image cannot be used; above ``path_states.LEFT_OUT``."""

    GONE = 2
    NO_FILE = 3
    FORBIDDEN = 4
    BROKEN = 5
    EMPTY = 6
    UNDECODABLE = 7
    CHANNELS = 8
    CACHE = 9
    LABELS = 10
    MASK = 11
    DEPTH = 12

    @property
    def words(self) -> str:
        """What to say of the image.

        Examples:
            >>> Problem.GONE.words
            'is gone'
        """
        return _WORDS[self]


_WORDS = {
    Problem.GONE: "is gone",
    Problem.NO_FILE: "is not a file any more",
    Problem.FORBIDDEN: "may not be read: permission denied",
    Problem.BROKEN: "cannot be read from its disk",
    Problem.EMPTY: "is empty",
    Problem.UNDECODABLE: "cannot be decoded: cut off, or no image",
    Problem.CHANNELS: "has another number of channels than the data set",
    Problem.CACHE: "has a .npy file beside it that cannot be read",
    Problem.LABELS: "has labels in memory that are missing or do not fit each other",
    Problem.MASK: "has no mask that can be read",
    Problem.DEPTH: "has no depth map that can be read",
}


def of_file(path: str) -> Problem | None:
    """Return why nothing can be read from a path; None when something can."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return Problem.NO_FILE  # opening a pipe would wait for ever
        with open(path, "rb") as file:
            return None if file.read(1) else Problem.EMPTY
    except (FileNotFoundError, NotADirectoryError):
        return Problem.GONE
    except PermissionError:
        return Problem.FORBIDDEN
    except OSError:
        return Problem.BROKEN


def of_image(path: str, flags: int = cv2.IMREAD_COLOR, channels: int | None = None) -> Problem | None:
    """Return why a path gives no image with these channels (None: any number); None when it does."""
    if (problem := of_file(path)) is not None:
        return problem
    try:
        image = imread(path, flags)
    except Exception:  # noqa: BLE001 - whatever a decoder says of a file: it is not decoded
        image = None
    if image is None:
        return Problem.UNDECODABLE
    return Problem.CHANNELS if channels is not None and image.shape[2] != channels else None


def of_array_file(path: str | os.PathLike[str]) -> Problem | None:
    """Return why a ``.npy`` gives no image; None when it does, or there is none."""
    if not os.path.lexists(path):
        return None
    try:
        return None if np.load(path).ndim >= 2 else Problem.CACHE
    except Exception:  # noqa: BLE001 - as above
        return Problem.CACHE


def of_item(dataset: Any, index: int, path: str | None) -> Problem | None:
    """Return why an image of a data set with boxes cannot be used; None when it can. Without a path only labels are looked at."""
    problem = of_image(path, dataset.cv2_flag, dataset.channels) if path is not None else None
    if problem is None and path is not None and path == str(dataset.im_files[index]):
        problem = of_array_file(dataset.npy_files[index])
    return problem or of_labels(dataset, index) or _of_companions(dataset, index)


def of_labels(dataset: Any, index: int) -> Problem | None:
    """Say whether the labels of an image are ruined in memory; None when they are like those of other images."""
    if _labels_fit(dataset, index):
        return None
    count = len(dataset.labels)
    others = [(index + 1 + n * max(1, count // OTHERS)) % count for n in range(min(OTHERS, count))]
    usual = any(_labels_fit(dataset, other) for other in others)  # else labels just look otherwise in this data set
    return Problem.LABELS if usual else None


def of_drawn_labels(dataset: Any, labels: Mapping[str, Any]) -> Problem | None:
    """Say whether labels drawn with an image do not fit each other, which only the loss would notice.

    Costs a microsecond: every image is asked.
    """
    instances, cls = labels.get("instances"), labels.get("cls")
    if instances is None or cls is None:
        return None
    count = len(instances)
    if len(cls) != count:
        return Problem.LABELS
    if count and getattr(dataset, "use_keypoints", False):
        keypoints = instances.keypoints
        if keypoints is None or len(keypoints) != count:
            return Problem.LABELS
    outlines = len(instances.segments)
    if count and outlines != count and (outlines or getattr(dataset, "use_obb", False)):
        return Problem.LABELS
    return None


def of_sample(dataset: Any, index: int) -> Problem | None:
    """Return why an image of a classification data set cannot be used; None when it can."""
    sample = dataset.samples[index]
    if not isinstance(sample, (list, tuple)) or len(sample) != 4:
        return Problem.LABELS
    path, label, array, _ = sample
    if label is None:
        return Problem.LABELS
    if dataset.cache_ram:
        return None
    return of_image(str(path)) or (of_array_file(array) if dataset.cache_disk else None)


def _of_companions(dataset: Any, index: int) -> Problem | None:
    """Look at the mask or the depth map that belongs to an image."""
    labels = dataset.labels[index]
    if isinstance(labels, Mapping) and "mask_file" in labels:
        try:
            read_mask(labels["mask_file"], labels.get("mode", ""))
        except Exception:  # noqa: BLE001 - as above
            return Problem.MASK
    if hasattr(dataset, "depth_files_by_image"):
        try:
            dataset._load_depth(index)
        except Exception:  # noqa: BLE001 - as above
            return Problem.DEPTH
    return None


def _labels_fit(dataset: Any, index: int) -> bool:
    """Return whether the labels of an image have the form that Ultralytics' scan gives them."""
    try:
        labels = dataset.labels[index]
        count = len(labels["cls"])
        arrays = [np.asarray(labels["cls"]), np.asarray(labels["bboxes"])]
        fit = arrays[1].shape == (count, 4) and {"normalized", "bbox_format"} <= set(labels)
        segments = labels.get("segments")
        if segments is not None:
            arrays += [np.asarray(segment) for segment in segments]
            fit = fit and len(segments) in {0, count} and all(a.ndim == 2 and a.shape[1] == 2 for a in arrays[2:])
        if getattr(dataset, "use_segments", False) or getattr(dataset, "use_obb", False):
            fit = fit and segments is not None and len(segments) == count
        if getattr(dataset, "use_keypoints", False):
            arrays.append(np.asarray(labels["keypoints"]))
            fit = fit and arrays[-1].ndim == 3 and len(arrays[-1]) == count
        return bool(fit) and all(np.issubdtype(array.dtype, np.number) for array in arrays)
    except (TypeError, KeyError, ValueError, AttributeError, IndexError):
        return False


def belongs(array_file: Path | str, path: str) -> bool:
    """Return whether a ``.npy`` is the one that Ultralytics keeps beside an image.

    Examples:
        >>> belongs(Path("a/b.npy"), "a/b.jpg"), belongs("a/c.npy", "a/b.jpg")
        (True, False)
    """
    return os.fspath(array_file) == os.path.splitext(path)[0] + ".npy"
