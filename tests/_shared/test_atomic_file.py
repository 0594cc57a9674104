"""Files that are there whole: the old one or the new one, whatever happens while the new one is written."""

from __future__ import annotations

import builtins
import errno
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from yolo_stable._shared import atomic_file as whole_file
from yolo_stable._shared.atomic_file import CHUNK, reason, write_whole

OLD, NEW = b"old" * 100, b"the new one" * 50


class Breaking:
    """A file that fails when byte ``at`` is to be written; what came before it is on the disk."""

    def __init__(self, file: Any, at: int, error: BaseException) -> None:
        self.file, self.left, self.error = file, at, error
        self.fired = False

    def write(self, data: bytes) -> int:
        self.file.write(data[: self.left])
        self.file.flush()
        if len(data) > self.left:
            self.fired = True
            raise self.error
        self.left -= len(data)
        return len(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Breaking:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_a_crash_at_any_byte_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(OLD)
    monkeypatch.setattr(whole_file, "CHUNK", 64)
    for at in range(0, len(NEW), 7):
        files: list[Breaking] = []

        def breaking(name: Any, mode: str = "r", at: int = at, files: list[Breaking] = files) -> Any:
            file: Any = builtins.open(name, mode)  # noqa: SIM115 - whoever called it closes it
            if mode == "wb":
                files.append(Breaking(file, at, error))
                return files[-1]
            return file

        monkeypatch.setattr(whole_file, "open", breaking, raising=False)
        with pytest.raises(type(error)):
            write_whole(path, NEW)
        assert files[0].fired
        assert path.read_bytes() == OLD
        assert list(tmp_path.iterdir()) == [path]
    monkeypatch.undo()
    write_whole(path, NEW)
    assert path.read_bytes() == NEW


KILLED = """
import os, sys
from pathlib import Path
from yolo_stable._shared import atomic_file
path, at = Path(sys.argv[1]), int(sys.argv[2])
calls = 0
def dying(function):
    def call(*args):
        global calls
        calls += 1
        if calls > at:
            os._exit(9)
        return function(*args)
    return call
for name in ("fsync", "replace"):
    setattr(os, name, dying(getattr(os, name)))
atomic_file.write_whole(path, b"new")
"""


@pytest.mark.parametrize(("calls", "left"), [(0, b"old"), (1, b"old"), (2, b"new"), (3, b"new")])
def test_a_process_that_dies_leaves_one_of_them(tmp_path: Path, calls: int, left: bytes) -> None:
    """Without any clean-up, as with SIGKILL; the next write takes the place of what it left."""
    path = tmp_path / "last.pt"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(path), str(calls)], check=False, timeout=60)
    assert done.returncode == (9 if calls < 3 else 0)
    assert path.read_bytes() == left
    write_whole(path, b"newer")
    assert path.read_bytes() == b"newer"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["replace", "fsync"])
def test_a_failing_call_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(OLD)
    called: list[object] = []

    def fail(*args: object) -> None:
        called.append(args)
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(OSError, match="quota") as caught:
        write_whole(path, NEW)
    assert len(called) == 1
    assert reason(caught.value) == "Disk quota exceeded"
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]


def test_bytes_that_come_back_changed_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(OLD)

    def flip(handle: int) -> None:
        part = tmp_path / "last.pt.part"
        damaged = bytearray(part.read_bytes())
        damaged[17] ^= 4
        part.write_bytes(damaged)

    monkeypatch.setattr(os, "fsync", flip)
    with pytest.raises(OSError, match="read back with other bytes from byte 0 on"):
        write_whole(path, NEW)
    assert path.read_bytes() == OLD


SIZES = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]


@pytest.mark.parametrize("size", [0, *SIZES])
@pytest.mark.parametrize("pieces", [1, 2])
def test_files_of_any_size_are_written(tmp_path: Path, size: int, pieces: int) -> None:
    path = tmp_path / "folder" / "file"
    content = random.Random(size).randbytes(size)
    write_whole(path, content if pieces == 1 else [content[: size // 3], memoryview(content)[size // 3 :]])
    assert path.read_bytes() == content


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("how", ["the last byte is another", "a byte more", "a byte less"])
def test_a_change_at_the_very_end_is_found_in_files_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, how: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    content = random.Random(size).randbytes(size)
    changed: list[str] = []

    def change(handle: int) -> None:
        part = tmp_path / "file.part"
        ends = {"the last byte is another": bytes([content[-1] ^ 1]), "a byte more": content[-1:] + b"x"}
        part.write_bytes(content[:-1] + ends.get(how, b""))
        changed.append(how)

    monkeypatch.setattr(os, "fsync", change)
    with pytest.raises(OSError, match="read back with other bytes from byte"):
        write_whole(path, content)
    assert changed == [how]
    assert path.read_bytes() == OLD


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.pt", tmp_path / "last.pt"
    real.write_bytes(OLD)
    link.symlink_to(real)
    write_whole(link, NEW)
    assert link.is_symlink()
    assert real.read_bytes() == NEW


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder_is_an_error_that_says_so(tmp_path: Path) -> None:
    path = tmp_path / "weights" / "last.pt"
    path.parent.mkdir()
    path.write_bytes(OLD)
    path.parent.chmod(0o555)
    try:
        with pytest.raises(OSError, match="Permission denied"):
            write_whole(path, NEW)
        assert path.read_bytes() == OLD
    finally:
        path.parent.chmod(0o755)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_that_is_full_is_an_error_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(OLD)
    monkeypatch.setattr(
        whole_file,
        "open",
        lambda name, mode="r": builtins.open("/dev/full" if mode == "wb" else name, mode),  # noqa: SIM115
        raising=False,
    )
    with pytest.raises(OSError, match="No space left on device"):
        write_whole(path, NEW)
    assert path.read_bytes() == OLD
    assert list(tmp_path.iterdir()) == [path]
