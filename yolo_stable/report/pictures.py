"""Pictures: the previews of incidents, small enough for a page."""

from __future__ import annotations

import base64
import io
import struct
from pathlib import Path

LIMIT = 50
"""Most pictures of a page."""
BYTES = 120_000
"""Largest picture; a larger file is reduced."""
SIDES = ((900, 82), (640, 75), (400, 70))
"""Pixels of the longer side, and quality, tried until a picture is small enough."""
BUDGET = 6_000_000
"""Bytes of all pictures of a page."""
LARGEST_FILE = 1 << 26
MOST_PIXELS = 100_000_000
"""A larger picture is not decoded: a few bytes of a stranger may stand for any number of pixels."""
BROKEN = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, OverflowError, struct.error)
"""Errors of Pillow's reader for damaged files."""


class Pictures:
    """Returns pictures as data URIs until there are too many or they take too much."""

    def __init__(self) -> None:
        self._left, self._budget = LIMIT, BUDGET
        self.omitted = 0
        """Pictures that exist but are not shown."""

    def take(self, path: Path) -> str:
        """Return a picture as a data URI; empty if it is missing or damaged, or enough are shown."""
        if not path.is_file():
            return ""
        if self._left <= 0 or self._budget <= 0:
            self.omitted += 1
            return ""
        content = _small(path)
        if not content or len(content) > self._budget:
            self.omitted += bool(content)
            return ""
        self._left -= 1
        self._budget -= len(content)
        return "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")


def _small(path: Path) -> bytes:
    """Return a picture as a small JPEG; empty if it cannot be read.

    Pillow's reader is called directly: within a training ``PIL.Image.open`` is Ultralytics', which may install packages.
    """
    from PIL.JpegImagePlugin import JpegImageFile

    try:
        if path.stat().st_size > LARGEST_FILE:
            return b""
        content = path.read_bytes()
        with JpegImageFile(io.BytesIO(content)) as image:
            if image.width * image.height > MOST_PIXELS:
                return b""
            if len(content) <= BYTES:
                image.load()
                return content
            image.draft("RGB", (SIDES[0][0], SIDES[0][0]))
            small = image.convert("RGB")
    except BROKEN:
        return b""
    for side, quality in SIDES:
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=quality, optimize=True)
        content = buffer.getvalue()
        if len(content) <= BYTES:
            break
    return content
