"""Atomic files: a crash at any byte leaves the old file or the new one.

A file is written beside the old one, flushed, read back and renamed; then the folder is flushed.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import InvalidCallError

PART = ".part"
"""Suffix of an unfinished file; the next process overwrites what a killed one left."""
CHUNK = 1 << 20
"""Bytes that are written and read back at a time."""
Content = bytes | Sequence[bytes | memoryview]
"""Of a file: bytes, or its pieces in order; a memoryview is one of bytes."""


def write_whole(path: Path, content: Content) -> None:
    """Replace a file, which stays untouched until the new one is on the disk and was read back.

    Args:
        path: The file, through a link; its folder is made if needed.
        content: All of it.

    Raises:
        OSError: It could not be written, or was read back with other bytes. The old file is untouched, and nothing else remains.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with open(part, "wb") as file:
            for chunk in _chunks(content):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        _require_same(part, content)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    _flush_folder(path.parent)


def write_asked_for(path: Path, content: bytes, what: str) -> None:
    """Write a file that a command was asked for; ``what`` begins the message.

    Raises:
        InvalidCallError: It could not be written.
    """
    try:
        write_whole(path, content)
    except OSError as error:
        raise InvalidCallError(f"{what} cannot be written: {reason(error)}.") from error


def reason(error: OSError) -> str:
    """Return why a file could not be written, without its name.

    Examples:
        >>> reason(OSError(28, "No space left on device"))
        'No space left on device'
    """
    return error.strerror or str(error) or type(error).__name__


def _chunks(content: Content) -> Iterator[memoryview]:
    for piece in (content,) if isinstance(content, bytes) else content:
        view = memoryview(piece)
        for start in range(0, len(view), CHUNK):
            yield view[start : start + CHUNK]


def _require_same(part: Path, content: Content) -> None:
    start, buffer = 0, bytearray(CHUNK)
    with open(part, "rb") as file:
        for chunk in _chunks(content):
            read = buffer if len(chunk) == len(buffer) else bytearray(len(chunk))
            if file.readinto(read) != len(chunk) or read != chunk:  # comparing a bytearray is fast
                raise _changed(part, start)
            start += len(chunk)
        if file.read(1):
            raise _changed(part, start)


def _changed(part: Path, start: int) -> OSError:
    return OSError(errno.EIO, f"read back with other bytes from byte {start} on", str(part))


def _flush_folder(folder: Path) -> None:
    """Make the new name durable; where folders cannot be opened (Windows), the system does so."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
