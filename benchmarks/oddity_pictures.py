"""Data sets of drawn pictures for the honest oddities: any size, depth, number of bands, and any order of easy and hard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

Box = tuple[int, float, float, float, float]
"""Class, centre and size as shares of the picture."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one picture looks."""

    width: int = 64
    height: int = 64
    objects: int = 1
    side: tuple[float, float] = (0.3, 0.6)
    """Smallest and largest side of an object, as a share of the picture's."""
    flat: float = 1.0
    """Height of an object over its width."""
    ground: tuple[float, float] = (0.15, 0.35)
    """Darkest and brightest pixel of the background, 0 to 1."""
    paint: tuple[float, float] = (0.6, 1.0)
    """The same of the objects, whose class decides about the bands."""
    kinds: tuple[int, ...] = (0, 1)
    """Classes that are drawn from."""
    told: float = 1.0
    """Share of the objects that have a label."""
    lie: bool = False
    """Whether the labels have nothing to do with the picture."""


Looks = Callable[[int], Look]
"""How the picture of a number looks."""
BACKGROUND = Look(objects=0)


def plain(_: int) -> Look:
    """Return the look of pictures with nothing odd about them."""
    return Look()


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set to be drawn.

    Call it with the folder that it is drawn into; what it returns is Ultralytics' ``data=``.
    """

    looks: Looks = plain
    task: str = "detect"
    train: int = 32
    val: int = 8
    classes: int = 2
    bands: int = 3
    depth: Any = np.uint8
    """Type of the numbers in the files."""
    suffix: str = ".png"
    val_looks: Looks = plain
    val_is_train: bool = False
    listed: Callable[[list[Path]], list[Path]] | None = None
    """What stands in a list file of the training pictures; None: the folder is named."""

    def __call__(self, folder: Path) -> Path:
        """Draw it, unless it is there."""
        self._draw_split(folder, "train", self.train, self.looks)
        self._draw_split(folder, "val", self.val, self.val_looks)
        if self.task == "classify":
            return folder
        names = {number: f"kind {number}" for number in range(self.classes)}
        train = "images/train"
        if self.listed is not None:
            lines = self.listed(sorted((folder / train).iterdir()))
            (folder / "train.txt").write_text("\n".join(map(str, lines)) + "\n", encoding="utf-8")
            train = "train.txt"
        content: dict[str, Any] = {"path": str(folder), "train": train, "val": "images/val", "names": names}
        content["val"] = train if self.val_is_train else content["val"]
        if self.bands != 3:
            content["channels"] = self.bands
        if self.task == "pose":
            content |= {"kpt_shape": [4, 3], "flip_idx": [1, 0, 3, 2]}
        (folder / "data.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        return folder / "data.yaml"

    def _draw_split(self, folder: Path, split: str, count: int, looks: Looks) -> None:
        random = np.random.default_rng(count + (split == "val"))
        for number in range(count):
            look = looks(number)
            picture, boxes = draw(look, random, self.bands)
            largest = np.iinfo(self.depth).max if np.issubdtype(self.depth, np.integer) else 65535
            picture = (picture * largest).astype(self.depth)
            if self.task == "classify":
                place = folder / split / f"kind-{boxes[0][0]}"
                place.mkdir(parents=True, exist_ok=True)
                save(place / f"{number:03d}{self.suffix}", picture)
                continue
            images, labels = folder / "images" / split, folder / "labels" / split
            for place in (images, labels):
                place.mkdir(parents=True, exist_ok=True)
            save(images / f"{number:03d}{self.suffix}", picture)
            told = [box for box in boxes if random.random() < look.told]
            if told:
                rows = "\n".join(row(self.task, box) for box in told)
                (labels / f"{number:03d}.txt").write_text(rows + "\n", encoding="utf-8")


def draw(look: Look, random: np.random.Generator, bands: int) -> tuple[np.ndarray, list[Box]]:
    """Return a picture, (height, width, bands), 0 to 1, and its boxes."""
    picture = random.uniform(*look.ground, (look.height, look.width, bands))
    boxes = []
    for _ in range(look.objects):
        kind = int(random.choice(look.kinds))
        w, h = random.uniform(*look.side) * np.array([1.0, look.flat])
        x, y = random.uniform(w / 2, 1 - w / 2), random.uniform(h / 2, 1 - h / 2)
        left, top = int((x - w / 2) * look.width), int((y - h / 2) * look.height)
        right, bottom = max(left + 1, int((x + w / 2) * look.width)), max(top + 1, int((y + h / 2) * look.height))
        share = np.random.default_rng(kind).uniform(0, 1, bands)
        picture[top:bottom, left:right] = look.paint[0] + (look.paint[1] - look.paint[0]) * share
        boxes.append((kind, x, y, w, h))
    if look.lie:
        boxes = [(int(random.choice(look.kinds)), *random.uniform(0.3, 0.6, 4)) for _ in boxes]
    return picture, boxes


def save(path: Path, picture: np.ndarray) -> None:
    """Write a picture, or raise; with a suffix ``.npy`` an empty one, and its numbers beside it."""
    if path.suffix == ".npy":
        save(path.with_suffix(".png"), np.zeros((*picture.shape[:2], 3), np.uint8))
        np.save(path, picture)  # younger than its picture, so that Ultralytics takes it
        return
    bands = picture.shape[-1]
    pages = [picture[..., band] for band in range(bands)]
    done = cv2.imwritemulti(str(path), pages) if bands > 4 else cv2.imwrite(str(path), picture)
    if not done:
        raise OSError(f"{path} could not be written.")


def row(task: str, box: Box) -> str:
    """Return a line of a label file."""
    kind, x, y, w, h = box
    left, right, top, bottom = x - w / 2, x + w / 2, y - h / 2, y + h / 2
    corners = [left, top, right, top, right, bottom, left, bottom]
    if task == "pose":
        points = [number for i in range(0, 8, 2) for number in (*corners[i : i + 2], 2)]
        numbers = [x, y, w, h, *points]
    elif task == "segment":
        numbers = corners
    elif task == "obb":
        numbers = [x, top, right, y, x, bottom, left, y]
    else:
        numbers = [x, y, w, h]
    return " ".join([str(kind), *(f"{number:.5f}" for number in numbers)])
