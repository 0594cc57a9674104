"""Arrays (``.npy``) beside images, which Ultralytics reads in place of the image without a word."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from .._shared.regular_file import open_regular
from .finding import DataFinding, Severity
from .fingerprints import apart
from .header import Header
from .pixels import Appearance, look_at
from .rules import found

MOST_BYTES = 1 << 40
"""Of an array; it is mapped, not read whole."""
SCALED = (np.int16, np.float32, np.float64)
"""Types beyond 8 bits that training takes where it leaves colours alone."""
ANOTHER = 0.4
"""Share of the set bits of two fingerprints that differ in other pictures: copies reach 0.27, most strangers 0.5."""
PROPORTIONS = 0.02
"""Tolerance of an array's proportions: rounding at 50 pixels."""
_MOST_SIDE = 2048
"""Pixels of the shorter side beyond which every other one is skipped."""
_ROWS = 256
"""Rows that are looked at in one go."""


def check_array(path: str, image: str, header: Header, channels: int, findings: list[DataFinding]) -> bool:
    """Check the array beside an image, if Ultralytics would take it.

    Returns:
        Whether Ultralytics reads it in place of the image, and nothing is wrong with it.
    """
    try:
        if os.stat(path).st_mtime < os.stat(image).st_mtime:
            return False  # older than its image: not taken
        with open_regular(path, most=MOST_BYTES, links=True):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise ValueError("it holds no array of pixels")
    except (OSError, ValueError, EOFError) as error:
        severity = None if os.path.isfile(path) else Severity.ERROR  # a pipe is waited for, a folder cannot be deleted
        findings.append(found("npy-unreadable", path, f"cannot be read: {error}", severity=severity, image=image))
        return False
    have = array.shape[-1] if array.ndim >= 3 else 1
    if have != channels or array.dtype == np.uint16:
        message = f"has {have} channels of {array.dtype}; expected: {channels} of uint8. Ultralytics rewrites it"
        findings.append(found("npy-mismatch", path, message, severity=Severity.WARNING, image=image))
        return False
    if array.ndim not in (2, 3) or not _alike(array.shape, header):
        expected = (header.height, header.width, channels)
        findings.append(found("npy-mismatch", path, f"its shape is {array.shape}; expected: {expected}", image=image))
        return False
    if array.shape[:2] != (header.height, header.width):
        message = f"is {array.shape[1]} x {array.shape[0]}; the image is {header.width} x {header.height}"
        findings.append(found("npy-mismatch", path, message, severity=Severity.WARNING, image=image))
    if array.dtype.kind == "f":
        bad = sum(int((~np.isfinite(array[at : at + _ROWS])).sum()) for at in range(0, len(array), _ROWS))
        if bad:
            findings.append(found("npy-not-finite", path, f"{bad} of {array.size} values are NaN or Inf", image=image))
            return False
    if array.dtype != np.uint8:
        message = f"holds {array.dtype}; expected: uint8, 0 to 255"
        taken = channels != 3 and array.dtype in SCALED
        severity = Severity.WARNING if taken else None
        findings.append(found("npy-mismatch", path, message, severity=severity, image=image))
        return taken
    return True


def check_picture(path: str, image: str, look: Appearance, findings: list[DataFinding]) -> None:
    """Report an array that shows something else than its image, which looks like ``look``."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != np.uint8:
        return
    step = max(min(array.shape[:2]) // _MOST_SIDE, 1)
    bands = np.array(array[::step, ::step]).reshape(-(-array.shape[0] // step), -(-array.shape[1] // step), -1)
    grey = Image.fromarray(bands[..., 0] if bands.shape[2] < 3 else bands[..., 2::-1]).convert("L")
    share = apart(look_at(grey).small, look.small)
    if share > ANOTHER:
        message = f"shows another picture than its image: {share:.0%} of the bits of their fingerprints differ"
        findings.append(found("npy-picture", path, message, image=image))


def _alike(shape: tuple[int, ...], header: Header) -> bool:
    """Say whether an array has its image's proportions, so that labels fit both."""
    if min(*shape[:2], header.width, header.height) < 1:
        return False
    return abs(shape[1] * header.height / (shape[0] * header.width) - 1) <= PROPORTIONS
