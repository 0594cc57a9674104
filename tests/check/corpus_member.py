"""A member of the corpus of files: an image with its labels, and what is meant by them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

BOX = "0 0.5 0.5 0.4 0.4"
OBJECT = (0, 0.5, 0.5, 0.4, 0.4)


@dataclass(frozen=True)
class Member:
    """An image, its label file, and what its maker meant by them.

    Attributes:
        name: The image's file name.
        image: Its content; None: ``plant`` writes it.
        labels: The label file's content; None: there is none.
        pixels: What the loader should give: ``(height, width, channels)`` uint8, BGR; None is not compared.
        objects: Class, box and keypoints of each object that is meant; None is not compared.
        plant: Puts more beside the two: called with the paths of the image and of the label file.
        level: What `check` has to say where Ultralytics is content and should not be: ``error``, ``warning`` or ``info``.
        why: The reason of the level.
    """

    name: str
    image: bytes | None = None
    labels: bytes | None = f"{BOX}\n".encode()
    pixels: np.ndarray | None = None
    objects: tuple[tuple[float, ...], ...] | None = (OBJECT,)
    plant: Callable[[Path, Path], Any] | None = None
    level: str | None = None
    why: str = ""


@dataclass(frozen=True)
class Group:
    """Members that are one data set: images of one task."""

    name: str
    members: tuple[Member, ...]
    task: str = "detect"
    description: dict[str, Any] = field(default_factory=dict)
