"""Pixel rules: whether an image can be decoded to its end, whether it is of one colour, what it looks like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .finding import DataFinding
from .header import Header
from .opening import BROKEN, open_path
from .picture import WIDE, eight_bits
from .rules import found

SIDE = 16
"""Pixels a side of the small copy that is kept of each image."""
FLAT = 2.0
"""Grey levels between darkest and brightest pixel of an image of one colour."""
STEP = 2
"""Grey levels by which a neighbour in the small copy must be brighter: noise in flat parts is not."""
_BRIGHTEST, _STEEPEST = 0.01, 0.002
"""Shares of the pixels: the brightest, and those at the steepest edges."""
_FAR = 4
"""Pixels over which a blurred edge has risen."""
_DRAFT = 4 * SIDE
"""Least pixels a side to which a JPEG is decoded; libjpeg then skips most of the work."""


@dataclass(frozen=True, slots=True)
class Appearance:
    """What is kept of the pixels of an image."""

    small: bytes
    """Grey, ``(SIDE, SIDE)`` uint8."""
    grey: np.ndarray
    """At the scale at which edges are compared, some 64 to 128 pixels for the shorter side: ``(H, W)`` uint8."""


def look_into(path: str, header: Header, findings: list[DataFinding]) -> Appearance | None:
    """Decode an image, small where its format allows that, and judge it.

    Returns:
        What it looks like; None when it cannot be decoded or is of one colour.
    """
    try:
        with header.picture or open_path(path) as image:
            image.draft("L", (_DRAFT, _DRAFT))
            image.load()
            if image.mode in {"RGBA", "LA", "PA"} and image.getchannel("A").getextrema()[0] == 255:
                _drop(findings, "image-alpha", path)  # nothing is hidden
            grey = _grey(image)
    except BROKEN as error:
        findings.append(found("image-truncated", path, f"cannot be decoded to its end: {error}", image=path))
        return None
    if header.trailing:
        findings.append(found("image-trailing", path, "has more bytes behind the end of the picture", image=path))
    small = grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    if _range(small)[1] - _range(small)[0] <= FLAT:  # a mean of pixels lies between them: most need no closer look
        low, high = _range(grey)
        if high - low <= FLAT:
            what = "black" if high <= 2 * FLAT else "of one colour"
            findings.append(found("image-constant", path, f"is {what}: grey levels {low:g} to {high:g}", image=path))
            return None
    return look_at(grey, small)


def _range(grey: Image.Image) -> tuple[float, float]:
    low, high = grey.getextrema()
    assert isinstance(low, (int, float))
    assert isinstance(high, (int, float))
    return low, high


def _drop(findings: list[DataFinding], rule: str, path: str) -> None:
    findings[:] = [finding for finding in findings if (finding.rule.id, finding.path) != (rule, path)]


def look_at(grey: Image.Image, small: Image.Image | None = None) -> Appearance:
    """Return what a picture of one channel looks like.

    Args:
        grey: The picture.
        small: Its small copy, if there is one.
    """
    small = small or grey.resize((SIDE, SIDE), Image.Resampling.BOX)
    factor = 1
    while min(grey.size) >= 2 * factor * _DRAFT:
        factor *= 2
    scaled = grey.reduce(factor) if factor > 1 else grey  # one scale for files that can be decoded small and others
    return Appearance(small.tobytes(), np.asarray(scaled))


def light_and_edges(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Measure pictures, many at a time: threads then wait less for each other than for one at a time.

    Args:
        pictures: Of :attr:`Appearance.grey`.

    Returns:
        For each the grey level that 1 % of the pixels exceed, and how sharp it is: the steepest steps from a pixel to the next
        one, as a share of those over four pixels: 1/4 for a ramp, 1 for a sharp edge. ``(N,)`` float32 both.
    """
    bright, sharp = np.zeros(len(pictures), np.float32), np.zeros(len(pictures), np.float32)
    alike: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        alike.setdefault(picture.shape, []).append(place)
    for places in alike.values():
        stack = np.stack([pictures[place] for place in places])
        bright[places] = _exceeded(stack, _BRIGHTEST)
        sharp[places] = _sharpness(stack)
    return bright, sharp


def _sharpness(stack: np.ndarray) -> np.ndarray:
    near, far = np.zeros(len(stack), np.int64), np.zeros(len(stack), np.int64)
    for lines in (stack, stack.swapaxes(1, 2)):
        if lines.shape[2] > _FAR:
            near += _exceeded(_steps(lines, 1), _STEEPEST)
            far += _exceeded(_steps(lines, _FAR), _STEEPEST)
    return np.where(far > STEP, near / np.maximum(far, 1), 1.0)


def _steps(lines: np.ndarray, apart: int) -> np.ndarray:
    """Return by how much each pixel differs from one further along its line."""
    one, other = lines[..., apart:], lines[..., :-apart]
    return np.maximum(one, other) - np.minimum(one, other)


def _exceeded(stack: np.ndarray, share: float) -> np.ndarray:
    """Return the highest grey level that this share of the pixels reaches, for each picture."""
    pixels = stack.reshape(len(stack), -1)
    place = pixels.shape[1] - math.ceil(share * pixels.shape[1])
    return np.partition(pixels, place, axis=1)[:, place]


def _grey(image: Image.Image) -> Image.Image:
    """Return one channel of 0 to 255 in any case."""
    if image.mode in WIDE:
        image = eight_bits(image)
    if image.mode in {"RGBA", "LA", "PA", "P"}:
        image = image.convert("RGB")
    return image if image.mode == "L" else image.convert("L")
