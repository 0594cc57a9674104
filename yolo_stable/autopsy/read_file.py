"""The bytes of a file that may be anything but a file."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..machine_memory import memory_of_machine

MOST_BYTES = 16 << 30


def read_file(path: Path, written: Mapping[str, Any] | None = None, *, most: int = MOST_BYTES) -> bytes:
    """Read a whole regular file; never waits for a pipe and follows no link.

    Args:
        path: The file.
        written: ``bytes`` and ``sha256`` of what was written, where known.
        most: Bytes that are read at most.

    Raises:
        OSError: It cannot be opened, or is a link.
        ValueError: It is no file, too large, or not what was written.
    """
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise ValueError("it is no regular file")
        most = min(most, memory_of_machine() // 3)
        if about.st_size > most:
            raise ValueError(f"it has {about.st_size} bytes, and at most {most} are read here")
        if written is not None and about.st_size != written.get("bytes"):
            raise ValueError(f"it has {about.st_size} bytes instead of {written.get('bytes')!r:.40}: it is cut off")
        with os.fdopen(os.dup(handle), "rb") as file:
            content = file.read(most)
    finally:
        os.close(handle)
    if written is not None and hashlib.sha256(content).hexdigest() != written.get("sha256"):
        raise ValueError("it is damaged: its checksum is wrong")
    return content
