"""Opening of images: with Pillow, whatever Ultralytics has made of ``PIL.Image.open``.

Once imported, Ultralytics tries to install a package when a file is of no known format. A check must not, so it asks Pillow's
readers directly, as ``PIL.Image.open`` does.
"""

from __future__ import annotations

import io
import struct
from typing import BinaryIO

from PIL import Image, ImageFile, UnidentifiedImageError

from .._shared.regular_file import read_file

MOST_BYTES = 1 << 30
"""Of an image file."""
BROKEN = (OSError, ValueError, SyntaxError, TypeError, IndexError, KeyError, EOFError, OverflowError, struct.error)
"""What Pillow's readers raise at files that are damaged."""


def open_image(file: BinaryIO) -> ImageFile.ImageFile:
    """Read an image's header from a file that stays open until the pixels are decoded.

    Raises:
        UnidentifiedImageError: No reader knows the file.

    Examples:
        >>> buffer = io.BytesIO()
        >>> Image.new("RGB", (3, 2)).save(buffer, "PNG")
        >>> open_image(buffer).size
        (3, 2)
    """
    file.seek(0)
    prefix = file.read(16)
    Image.preinit()
    if (image := _ask(file, prefix)) is None and Image.init():
        image = _ask(file, prefix)
    if image is None:
        raise UnidentifiedImageError("of no known format")
    return image


def open_path(path: str) -> ImageFile.ImageFile:
    """Read a file whole and open it as an image.

    Raises:
        UnidentifiedImageError: No reader knows the file.
        OSError: The file cannot be read.
        ValueError: It is no regular file, or larger than :data:`MOST_BYTES`.
    """
    return open_image(io.BytesIO(read_file(path, most=MOST_BYTES, links=True)))


def _ask(file: BinaryIO, prefix: bytes) -> ImageFile.ImageFile | None:
    for name in Image.ID:
        factory, accept = Image.OPEN[name]
        answer = not accept or accept(prefix)
        if not answer or isinstance(answer, str):
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except BROKEN:
            continue  # not its format after all, as for Pillow
    return None
