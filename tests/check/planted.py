"""Small data sets with known defects: each is planted by one call, which says at which path and line it must be found."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from PIL import Image

BOX = "0 0.5 0.5 0.4 0.4"
LINES = (BOX, "1 0.3 0.3 0.2 0.2")
"""Labels of a clean image."""
PLACE = tuple[str, str, int | None]
"""Rule, path and line of a finding."""


def picture(seed: int, width: int = 96, height: int = 64) -> np.ndarray:
    """Return clouds that look like no other seed's: ``(height, width, 3)`` uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    """Return an image's file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


class Planted:
    """A data set that is being written.

    Args:
        root: Its folder.
        **description: Keys of the ``data.yaml``.
    """

    def __init__(self, root: Path, **description: Any) -> None:
        self.root = root
        self.description = {"train": "images/train", "val": "images/val", "names": ["a", "b"], **description}
        self.expected: set[PLACE] = set()
        self._seed = 0
        for split in ("train", "val"):
            (root / "images" / split).mkdir(parents=True, exist_ok=True)
            (root / "labels" / split).mkdir(parents=True, exist_ok=True)

    def add(
        self,
        name: str,
        content: bytes | None = None,
        labels: Sequence[str] | bytes | None = (BOX,),
        split: str = "train",
    ) -> Path:
        """Write an image, by default a clean PNG that is like no other, and its labels; None: no label file."""
        self._seed += 1
        path = self.root / "images" / split / (name if "." in name else f"{name}.png")
        path.write_bytes(encoded(picture(self._seed)) if content is None else content)
        if labels is not None:
            self.label_of(path).write_bytes(
                labels if isinstance(labels, bytes) else "".join(f"{line}\n" for line in labels).encode()
            )
        return path

    @staticmethod
    def label_of(image: Path) -> Path:
        return image.parents[2] / "labels" / image.parent.name / f"{image.stem}.txt"

    def expect(self, rule: str, path: Path, line: int | None = None) -> Path:
        """Note what has to be found."""
        self.expected.add((rule, str(path), line))
        return path

    def image(self, rule: str, name: str, content: bytes | None = None, **options: Any) -> Path:
        """Plant a defect that is found at the image."""
        return self.expect(rule, self.add(name, content, **options))

    def line(self, rule: str, *lines: str, at: int = 2, name: str = "") -> Path:
        """Plant a defect in a label file, in its second line when nothing else is said."""
        image = self.add(name or f"{rule}-{len(self.expected)}", labels=lines)
        self.expect(rule, self.label_of(image), at)
        return image

    def write(self) -> Path:
        """Write the ``data.yaml``."""
        path = self.root / "data.yaml"
        path.write_text(yaml.safe_dump(self.description, sort_keys=False))
        return path


def clean(root: Path, lines: Sequence[str] = LINES, **description: Any) -> Planted:
    """Write a data set with nothing wrong in it."""
    data = Planted(root, **description)
    for split, count in (("train", 6), ("val", 3)):
        for number in range(count):
            data.add(f"clean-{split}-{number}", labels=lines, split=split)
    data.write()
    return data


def plant_images(data: Planted) -> None:
    """One instance of everything that can be wrong with an image file."""
    jpeg = encoded(picture(1000), "JPEG")
    data.image("image-empty", "empty.jpg", b"")
    data.image("image-unreadable", "text.jpg", b"this is no image at all")
    data.image("image-truncated", "cut.jpg", jpeg[: len(jpeg) // 2])
    data.image("image-truncated", "short.png", encoded(picture(1001))[:-400])
    data.image("image-truncated", "bit.png", flipped(encoded(picture(1002))))
    data.image("image-truncated", "brief.bmp", encoded(picture(1003), "BMP")[:-500])
    data.image("image-trailing", "trailing.jpg", jpeg + b"appended by a camera")
    data.image("image-extension", "named.jpg", encoded(picture(1004)))
    data.image("image-format", "gif.png", encoded(picture(1005), "GIF"))
    turned = Image.Exif()
    turned[274] = 6
    data.image("image-rotated", "turned.jpg", encoded(picture(1006), "JPEG", exif=turned.tobytes()))
    cmyk = io.BytesIO()
    Image.fromarray(picture(1007)).convert("CMYK").save(cmyk, "JPEG")
    data.image("image-cmyk", "cmyk.jpg", cmyk.getvalue())
    data.image("image-16bit", "deep.png", cv2.imencode(".png", picture(1008).astype(np.uint16) * 256)[1].tobytes())
    floats = picture(1009).astype(np.float32) / 255
    data.image("image-float", "float.tiff", cv2.imencode(".tiff", floats)[1].tobytes())
    grey = data.image("image-float", "grey-float.tiff", encoded(picture(1010)[..., 0].astype(np.float32), "TIFF"))
    data.expect("image-grey", grey)
    data.image("image-grey", "grey.png", encoded(picture(1011)[..., 0]))
    data.image("image-alpha", "alpha.png", encoded(np.dstack([picture(1012), picture(1013)[..., 0]])))
    data.image("image-small", "small.png", encoded(picture(1014, 64, 9)))
    data.image("image-huge", "huge.jpg", encoded(picture(1015, 12_001, 1_201), "JPEG"))
    data.image("image-aspect", "wide.png", encoded(picture(1016, 660, 60)))
    data.image("image-constant", "black.png", encoded(np.zeros((64, 96, 3), np.uint8)))
    data.image("image-constant", "flat.jpg", encoded(np.full((480, 640, 3), 90, np.uint8), "JPEG"))
    data.expect("image-ignored", data.add("moving.gif", encoded(picture(1017), "GIF"), labels=None))


def flipped(content: bytes) -> bytes:
    """Return a file with one byte in its middle changed."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def plant_arrays(data: Planted) -> None:
    """Arrays beside images; one that is older than its image is no defect."""

    def beside(name: str, array: np.ndarray | bytes, age: int = 0) -> Path:
        image = data.add(name)
        path = image.with_suffix(".npy")
        if isinstance(array, bytes):
            path.write_bytes(array)
        else:
            np.save(path, array)
        stamp = image.stat().st_mtime_ns + 10**9 * (10 - age)
        os.utime(path, ns=(stamp, stamp))
        return path

    spoilt = picture(1).astype(np.float32)
    spoilt[3, 4, 1] = np.nan
    data.expect("npy-not-finite", beside("nan", spoilt))
    data.expect("npy-unreadable", beside("broken", b"\x93NUMPY and then nothing"))
    data.expect("npy-mismatch", beside("other-size", picture(2, 40, 40)))
    data.expect("npy-mismatch", beside("other-type", picture(3).astype(np.float32)))
    beside("older", spoilt, age=3600)
    data.expect("npy-picture", beside("other-picture", picture(4)))
    fine = beside("fine", b"").with_suffix(".png")
    stamp = fine.stat().st_mtime_ns + 10**10
    np.save(fine.with_suffix(".npy"), cv2.imread(str(fine)))  # pyright: ignore[reportArgumentType]
    os.utime(fine.with_suffix(".npy"), ns=(stamp, stamp))


def plant_labels(data: Planted) -> None:
    """One instance of everything that can be wrong with a label file of boxes."""
    image = data.image("label-missing", "no-label", labels=None)
    orphan = data.label_of(image).with_name("orphan.txt")
    orphan.write_text(f"{BOX}\n")
    data.expect("label-orphan", orphan)
    data.expect("label-encoding", data.label_of(data.add("encoding", labels=b"0 0.5 0.5 0.4 0.4 \xff\n")))
    data.line("label-parse", "", "0 0.5 abc 0.4 0.4", BOX)
    data.line("label-columns", BOX, "0 0.5 0.5 0.4")
    data.line("label-columns", BOX, "0 0.5 0.5 0.4 0.4 0.9")
    mixed = data.line("label-columns", "0 0.1 0.1 0.4 0.1 0.4 0.4", BOX)
    data.expect("label-columns", data.label_of(mixed), 2)
    for value in ("nan", "inf", "-inf"):
        data.line("label-not-finite", BOX, f"1 0.5 {value} 0.4 0.4")
    data.line("class-fraction", BOX, "0.5 0.3 0.3 0.2 0.2")
    data.line("class-range", BOX, "2 0.3 0.3 0.2 0.2")
    data.line("class-range", BOX, "-1 0.3 0.3 0.2 0.2")
    data.line("coordinate-negative", BOX, "1 -0.2 0.5 0.2 0.2")
    data.line("coordinate-negative", BOX, "1 0.5 0.5 -0.2 0.2")
    data.line("coordinate-above-one", BOX, "1 320 240 40 40")
    data.line("coordinate-above-one", BOX, "1 0.5 0.5 1.005 0.2")
    data.line("box-zero-area", BOX, "1 0.5 0.5 0 0.2")
    data.line("box-zero-area", BOX, "1 0.5 0.5 0 0")
    data.line("box-subpixel", BOX, "1 0.5 0.5 0.2 0.01")
    data.line("box-over-edge", BOX, "1 0.95 0.5 0.2 0.2")
    data.line("box-duplicate", BOX, BOX)
    data.line("box-two-classes", BOX, BOX.replace("0", "1", 1))


def found_in(report: Any) -> set[PLACE]:
    """Return the places of all findings of a report."""
    return {(finding.rule.id, finding.path, finding.line) for finding in report.findings}
