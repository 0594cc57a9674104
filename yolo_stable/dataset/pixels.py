"""What only the pixels tell: whether an image can be decoded to its end, whether it is of one colour, what it looks like."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .finding import Finding
from .header import Header
from .opening import BROKEN, open_path
from .picture import WIDE, eight_bits
from .rules import found

SIDE = 16
"""The hash has SIDE * SIDE bits."""
WORDS = SIDE * SIDE // 64
FLAT = 2.0
"""Grey levels of 255 between darkest and brightest pixel, up to which an image counts as one colour."""
_STEP = 2.0
"""Grey levels by which a neighbour must be brighter to set a bit: noise in flat parts sets none."""
_DRAFT = 4 * SIDE
"""Pixels a side at least that a JPEG is decoded to; libjpeg then leaves out most of the work."""


def look(path: str, header: Header, findings: list[Finding]) -> np.ndarray | None:
    """Decode an image, small where its format allows that, and judge what is there.

    Args:
        path: The image.
        header: What :func:`read_header` has said of it.
        findings: What is wrong is appended here.

    Returns:
        Its difference hash: ``(WORDS,)`` uint64; None when it could not be decoded or is of one colour.
    """
    try:
        with header.picture or open_path(path) as image:
            image.draft("L", (_DRAFT, _DRAFT))
            image.load()
            grey = _grey(image)
    except BROKEN as error:
        findings.append(found("image-truncated", path, f"cannot be decoded to its end: {error}", image=path))
        return None
    if header.trailing:
        findings.append(found("image-trailing", path, "has more bytes behind the end of the picture", image=path))
    low, high = grey.getextrema()
    assert isinstance(low, (int, float))
    assert isinstance(high, (int, float))
    if high - low <= FLAT:
        what = "black" if high <= 2 * FLAT else "of one colour"
        findings.append(found("image-constant", path, f"is {what}: grey levels {low:g} to {high:g}", image=path))
        return None
    return difference_hash(grey)


def difference_hash(grey: Image.Image) -> np.ndarray:
    """Return which pixels of a small copy are darker than their right neighbour: ``(WORDS,)`` uint64."""
    small = np.asarray(grey.resize((SIDE + 1, SIDE), Image.Resampling.BOX), dtype=np.float32)
    return np.packbits(small[:, 1:] - small[:, :-1] > _STEP).view(np.uint64)


def _grey(image: Image.Image) -> Image.Image:
    """Return one channel of 0 to 255 in any case."""
    if image.mode in WIDE:
        image = eight_bits(image)
    if image.mode in {"RGBA", "LA", "PA", "P"}:
        image = image.convert("RGB")
    return image if image.mode == "L" else image.convert("L")
