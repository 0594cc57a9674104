"""Bands: the channels of an image file as Ultralytics' reader delivers them to training."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageOps

from .array_file import SCALED
from .finding import DataFinding, Severity
from .header import Header
from .opening import BROKEN, open_path
from .pixels import FLAT, Appearance, look_at
from .rules import found

PLAIN = (1, 3)
"""Channels to which the reader converts nearly every file; for others it takes a file as it is."""
_STACKS = (".tif", ".tiff")
_BY_PILLOW = (".avif", ".heic", ".heif")


def delivered(path: str, channels: int) -> np.ndarray | None:
    """Read an image as ``ultralytics.utils.patches.imread`` does; ``tests/check/test_bands.py`` compares the two.

    Returns:
        ``(height, width, channels)`` of any type; None when the reader can make nothing of the file.
    """
    import cv2

    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    content = np.fromfile(path, np.uint8)
    image: np.ndarray | None = None
    if flag != cv2.IMREAD_GRAYSCALE and path.lower().endswith(_STACKS):
        okay, pages = cv2.imdecodemulti(content, cv2.IMREAD_UNCHANGED)
        if okay and pages[0].ndim == 3:
            image = pages[0]
        elif okay and flag == cv2.IMREAD_UNCHANGED and len(pages) > 1 and len({page.shape for page in pages}) == 1:
            image = np.stack(pages, axis=2)
        if image is not None and flag != cv2.IMREAD_UNCHANGED:
            image = image[..., :3]
    if image is None and path.lower().endswith(_BY_PILLOW):
        image = _by_pillow(path, flag == cv2.IMREAD_GRAYSCALE)
    if image is None:
        image = cv2.imdecode(content, flag)
    if image is not None and image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    return image[..., None] if image is not None and image.ndim == 2 else image


def _by_pillow(path: str, grey: bool) -> np.ndarray | None:
    try:
        image = ImageOps.exif_transpose(open_path(path))
        return np.asarray(image.convert("L")) if grey else np.asarray(image.convert("RGB"))[..., ::-1]
    except BROKEN:
        return None


def check_bands(path: str, header: Header, channels: int, findings: list[DataFinding]) -> Appearance | None:
    """Judge what training gets of an image whose header is right; ``header`` is marked damaged when that is nothing.

    Returns:
        How all channels together look; None where nothing is kept.
    """
    if header.mode == "F" and channels in PLAIN:
        return None  # its header says what is wrong
    image = delivered(path, channels)
    if image is None:
        findings.append(found("image-unreadable", path, "Ultralytics' reader can make nothing of it", image=path))
        header.damaged = True
        return None
    if image.dtype != np.uint8:
        fine = channels not in PLAIN and image.dtype in SCALED and bool(((image >= 0) & (image <= 255)).all())
        severity = Severity.WARNING if fine and image.max() > 1 else None
        message = f"holds {image.dtype}; expected: 8 bits"
        findings.append(found("image-float", path, message, image=path, severity=severity))
        header.damaged = severity is None
        if header.damaged:
            return None
    if image.shape[2] != channels:
        message = f"has {image.shape[2]} channels as Ultralytics reads it; the description asks for {channels}"
        findings.append(found("image-channels", path, message, image=path))
        return None
    if channels in PLAIN:
        return None  # whose pixels are looked at in a cheaper way
    low, high = image.min(axis=(0, 1)), image.max(axis=(0, 1))
    if int((high.astype(int) - low).max()) <= FLAT:
        message = f"is of one colour: no channel has more than {FLAT:g} levels between its darkest and brightest pixel"
        findings.append(found("image-constant", path, message, image=path))
        return None
    return look_at(Image.fromarray(image.mean(axis=2).astype(np.uint8)))
