"""Files that are none: a pipe is not waited for, a device not read, a giant not held."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from yolo_stable._shared.regular_file import open_regular, read_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    return path


def test_a_file_is_read_whole(file: Path) -> None:
    assert read_file(file) == b"12345"
    with open_regular(file, most=5) as opened:
        assert opened.read() == b"12345"


def test_one_byte_too_many_is_refused(file: Path) -> None:
    assert read_file(file, most=5) == b"12345"
    with pytest.raises(ValueError, match="5 bytes, and at most 4"):
        read_file(file, most=4)


@pytest.mark.parametrize("made", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_or_a_folder_is_refused_at_once(tmp_path: Path, made: object, linked: bool) -> None:
    path = tmp_path / "odd"
    made(path)  # pyright: ignore[reportCallIssue]
    if linked:
        path = tmp_path / "link"
        path.symlink_to("odd")
    with pytest.raises((ValueError, OSError), match=r"no regular file|Is a directory"):
        read_file(path, links=True)


def test_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="no regular file"):
        read_file("/dev/zero")


def test_a_link_is_followed_only_where_that_is_allowed(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    assert read_file(link, links=True) == b"12345"
    with pytest.raises(OSError, match="symbolic links"):
        read_file(link)


def test_what_was_written_is_compared(file: Path) -> None:
    digest = "5994471abb01112afcc18159f6cc74b4f511b99806da59b3caf5a9c173cacfc5"
    assert read_file(file, {"bytes": 5, "sha256": digest}) == b"12345"
    with pytest.raises(ValueError, match="cut off"):
        read_file(file, {"bytes": 6, "sha256": digest})
    with pytest.raises(ValueError, match="checksum"):
        read_file(file, {"bytes": 5, "sha256": digest[::-1]})
