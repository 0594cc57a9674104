"""Picture: an image as training sees it: upright, 8 bits, RGB or grey, opaque."""

from __future__ import annotations

import io
import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .header import ENDINGS
from .opening import BROKEN, open_path

QUALITY = 95
COLOURS = 64
"""Pixels a side of a small copy in colour."""
WIDE = frozenset({"I", "F", "I;16", "I;16B", "I;16L"})
"""Modes of Pillow with more than 8 bits."""


def mended(path: str, ending: str) -> bytes:
    """Return the file of an image anew, with an ending such as ``.jpg``.

    Raises:
        OSError: The image cannot be read.
    """
    try:
        with open_path(path) as opened:
            image = ImageOps.exif_transpose(opened)
    except UnidentifiedImageError:
        image = _by_opencv(path)
    if image.mode in WIDE:
        image = eight_bits(image)
    if image.mode in {"LA", "PA"}:
        image = image.convert("RGBA")
    if image.mode != "L":
        image = image.convert("RGB")
    kind = next((name for name, endings in ENDINGS.items() if ending[1:] in endings and name != "MPO"), "PNG")
    buffer = io.BytesIO()
    options = {"quality": QUALITY, "subsampling": 0} if kind == "JPEG" else {}
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def small_colours(path: str) -> np.ndarray:
    """Return a small copy of an image: ``(3, COLOURS, COLOURS)`` uint8; zeros when the file is gone by now."""
    try:
        with open_path(path) as image:
            image.draft("RGB", (COLOURS, COLOURS))
            small = eight_bits(image) if image.mode in WIDE else image.convert("RGB")
    except BROKEN:
        return np.zeros((3, COLOURS, COLOURS), np.uint8)
    small = small.convert("RGB").resize((COLOURS, COLOURS), Image.Resampling.BOX)
    return np.asarray(small).transpose(2, 0, 1)


def new_ending(path: str, ending: str) -> str:
    """Return the ending that fits an image, or its own when that fits or nobody knows."""
    try:
        with open_path(path) as image:
            allowed = ENDINGS.get(image.format or "", ())
    except BROKEN:
        return ending
    return ending if not allowed or ending[1:].lower() in allowed else f".{allowed[0]}"


def _by_opencv(path: str) -> Image.Image:
    import cv2

    pixels = cv2.imread(os.fspath(path), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise OSError(f"{path} cannot be read")
    return eight_bits(pixels[..., 2::-1] if pixels.ndim == 3 else pixels)


def eight_bits(image: Image.Image | np.ndarray) -> Image.Image:
    """Scale numbers to 0..255: 16-bit ones by their high byte, as Ultralytics does; floats from 0..1 or 0..255."""
    pixels = np.asarray(image)
    values = np.nan_to_num(pixels.astype(np.float32))
    if pixels.dtype.kind == "f":
        scale = 255.0 if values.max(initial=0) <= 1 else 1.0
    else:
        scale = 1 / 257 if values.max(initial=0) > 255 else 1.0
    return Image.fromarray(np.clip(values * scale, 0, 255).astype(np.uint8))
