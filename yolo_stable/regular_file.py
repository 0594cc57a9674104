"""Regular files, whatever their names lead to: a pipe is not waited for, a device not read, a giant not held."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from typing import Any, BinaryIO

from .machine_memory import memory_of_machine

MOST_BYTES = 16 << 30
"""Read at most where nothing else is said, and at most a third of the machine's memory."""


def open_regular(path: str | os.PathLike[str], *, most: int, links: bool = False) -> BinaryIO:
    """Open a regular file for reading; never waits for a pipe.

    Args:
        path: The file.
        most: Bytes that it may have.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened, or is a link where none is allowed.
        ValueError: It is no file, or too large.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags if links else flags | getattr(os, "O_NOFOLLOW", 0))
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no regular file")
        if about.st_size > most:
            raise ValueError(f"it has {about.st_size} bytes, and at most {most} are read here")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


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
        written: ``bytes`` and ``sha256`` of what was written, where known.
        most: Bytes that it may have; None: :data:`MOST_BYTES`, or a third of the machine's memory.
        links: Whether it may be a link.

    Raises:
        OSError: It cannot be opened, or is a link where none is allowed.
        ValueError: It is no file, too large, or not what was written.
    """
    most = min(MOST_BYTES, memory_of_machine() // 3) if most is None else most
    with open_regular(path, most=most, links=links) as file:
        size = os.fstat(file.fileno()).st_size
        if written is not None and size != written.get("bytes"):
            raise ValueError(f"it has {size} bytes instead of {written.get('bytes')!r:.40}: it is cut off")
        content = file.read(most)
    if written is not None and hashlib.sha256(content).hexdigest() != written.get("sha256"):
        raise ValueError("it is damaged: its checksum is wrong")
    return content
