"""Regular files: opened without waiting for a pipe, reading a device or holding a giant file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO

from .system import memory_of_machine

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
MOST_BYTES = 16 << 30
"""Default limit, beside a third of the machine's memory."""


def open_regular(path: str | os.PathLike[str], *, most: int, links: bool = False) -> BinaryIO:
    """Open a regular file for reading, without waiting for a pipe.

    Args:
        path: The file.
        most: Bytes that it may have.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened, or is a forbidden link.
        ValueError: It is no regular file, or too large.
    """
    handle, _ = _open(path, most, links)
    return os.fdopen(handle, "rb")


def _open(path: str | os.PathLike[str], most: int, links: bool) -> tuple[int, int]:
    """Return the descriptor of a regular file, and its bytes."""
    handle = os.open(path, _FLAGS if links else _FLAGS | getattr(os, "O_NOFOLLOW", 0))
    about = os.fstat(handle)
    if stat.S_ISREG(about.st_mode) and about.st_size <= most:
        return handle, about.st_size
    os.close(handle)
    if stat.S_ISREG(about.st_mode):
        raise ValueError(f"it has {about.st_size} bytes, and at most {most} are read here")
    raise ValueError("it is no regular file")


def read_file(
    path: str | os.PathLike[str],
    written: Mapping[str, Any] | None = None,
    *,
    most: int | None = None,
    links: bool = False,
) -> bytes:
    """Read a whole regular file.

    Args:
        path: The file.
        written: ``bytes`` and ``sha256`` of what was written, if known.
        most: Bytes that it may have; None: :data:`MOST_BYTES`, or a third of the machine's memory.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened, or is a forbidden link.
        ValueError: It is no regular file, too large, or not what was written.
    """
    most = min(MOST_BYTES, memory_of_machine() // 3) if most is None else most
    handle, size = _open(path, most, links)
    try:
        if written is not None and size != written.get("bytes"):
            raise ValueError(f"it has {size} bytes instead of {written.get('bytes')!r:.40}: it is cut off")
        with open(handle, "rb", closefd=False) as file:
            content = file.read(size)  # without what is added meanwhile
    finally:
        os.close(handle)
    if written is not None and hashlib.sha256(content).hexdigest() != written.get("sha256"):
        raise ValueError("it is damaged: its checksum is wrong")
    return content
