"""The pictures of incidents, small enough for a page."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path

LIMIT = 50
"""Pictures of a page."""
BYTES = 120_000
"""A larger file is made smaller."""
SIDE = 900
"""Pixels of its longer side then."""
BUDGET = 5_000_000
"""Bytes of all pictures of a page."""
LARGEST_FILE = 1 << 26


class Pictures:
    """Hands out pictures as data URIs until there are too many or they take too much.

    Args:
        limit: How many at most.
        budget: Bytes of them all, before they are turned into text.
    """

    def __init__(self, limit: int = LIMIT, budget: int = BUDGET) -> None:
        self._left, self._budget = limit, budget
        self.omitted = 0
        """Pictures that are there and are not shown."""

    def take(self, path: Path) -> str:
        """Return a picture as a data URI; empty when there is none, it is no picture, or enough are shown."""
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
    """Return a picture as a JPEG that is no larger than it has to be; nothing when it cannot be read."""
    from PIL import Image, UnidentifiedImageError

    try:
        if path.stat().st_size > LARGEST_FILE:
            return b""
        content = path.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # a stranger's file of a few bytes
            with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
                if image.format == "JPEG" and len(content) <= BYTES:
                    image.load()
                    return content
                image.draft("RGB", (SIDE, SIDE))
                small = image.convert("RGB")
                small.thumbnail((SIDE, SIDE))
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError, Image.DecompressionBombError, Warning):
        return b""
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=82, optimize=True)
    return buffer.getvalue()
