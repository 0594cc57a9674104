"""Arrays (``.npy``) beside images, which Ultralytics reads in their place without a word."""

from __future__ import annotations

import os

import numpy as np

from ..regular_file import open_regular
from .finding import Finding, Severity
from .header import Header
from .rules import found

MOST_BYTES = 1 << 40
"""Of an array; it is mapped, not read whole."""
_ROWS = 256
"""Rows that are looked at in one go."""


def check_array(path: str, image: str, header: Header, channels: int, findings: list[Finding]) -> bool:
    """Look at the array beside an image, if Ultralytics would take it.

    Args:
        path: The array.
        image: The image that it stands for.
        header: What the image says of itself.
        channels: What the data set's description asks for; 3 when it says nothing.
        findings: What is wrong is appended here.

    Returns:
        Whether it is read in place of the image, and nothing is wrong with it.
    """
    try:
        if os.stat(path).st_mtime < os.stat(image).st_mtime:
            return False  # older than its image: not taken
        with open_regular(path, most=MOST_BYTES, links=True):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise ValueError("it holds no array of pixels")
    except (OSError, ValueError, EOFError) as error:
        findings.append(found("npy-unreadable", path, f"cannot be read: {error}", image=image))
        return False
    if array.dtype.kind == "f":
        bad = sum(int((~np.isfinite(array[at : at + _ROWS])).sum()) for at in range(0, len(array), _ROWS))
        if bad:
            findings.append(found("npy-not-finite", path, f"{bad} of {array.size} values are NaN or Inf", image=image))
            return False
    elif array.dtype.kind not in "bui":
        findings.append(found("npy-unreadable", path, f"holds {array.dtype}; expected is uint8", image=image))
        return False
    have = array.shape[2] if array.ndim >= 3 else 1
    if array.ndim not in (2, 3) or array.shape[:2] != (header.height, header.width) or have != channels:
        expected = (header.height, header.width, channels)
        findings.append(found("npy-mismatch", path, f"its shape is {array.shape}; expected is {expected}", image=image))
        return False
    if array.dtype != np.uint8:
        message = f"holds {array.dtype}; expected is uint8, 0 to 255"
        findings.append(found("npy-mismatch", path, message, severity=Severity.WARNING, image=image))
    return True
