"""Pixel rules: whether an image can be decoded to its end, whether it is of one colour, what it looks like."""

from __future__ import annotations

import math
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
    bright: float
    """Grey level that 1 % of the pixels exceed."""
    sharp: float
    """The steepest steps from a pixel to the next one, as a share of those over four pixels: 1/4 for a ramp, 1 for a sharp edge,
    at the size to which the image is decoded, some 64 to 128 pixels for its shorter side."""


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
    pixels = np.asarray(scaled)
    return Appearance(small.tobytes(), float(_exceeded(pixels, _BRIGHTEST)), _sharpness(pixels))


def _sharpness(grey: np.ndarray) -> float:
    near = far = 0
    for lines in (grey, grey.T):
        if lines.shape[1] > _FAR:
            near += _exceeded(_steps(lines, 1), _STEEPEST)
            far += _exceeded(_steps(lines, _FAR), _STEEPEST)
    return near / far if far > STEP else 1.0


def _steps(lines: np.ndarray, apart: int) -> np.ndarray:
    """Return by how much each pixel differs from one further along its line."""
    one, other = lines[:, apart:], lines[:, :-apart]
    return np.maximum(one, other) - np.minimum(one, other)


def _exceeded(grey: np.ndarray, share: float) -> int:
    """Return the highest grey level that is reached by this share of the pixels."""
    wanted = math.ceil(share * grey.size)
    rows = grey.max(axis=1)
    if wanted < len(rows):  # as many rows reach this level, so as many pixels do: the others need not be put in order
        grey = grey[grey >= np.partition(rows, -wanted)[-wanted]]
    return int(np.partition(grey, -wanted, axis=None)[-wanted])


def _grey(image: Image.Image) -> Image.Image:
    """Return one channel of 0 to 255 in any case."""
    if image.mode in WIDE:
        image = eight_bits(image)
    if image.mode in {"RGBA", "LA", "PA", "P"}:
        image = image.convert("RGB")
    return image if image.mode == "L" else image.convert("L")
