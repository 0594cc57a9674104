"""Results table: ``results.csv`` of a run that changes hands or is resumed.

Ultralytics appends the rows. Where columns are missing or rows have to go, the file is replaced whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .._shared.atomic_file import write_whole


def end_last_row(path: Path) -> None:
    """Cut off a last row that a full disk has left unfinished: the next one would be written into it.

    Raises:
        OSError: The file cannot be read or written.
    """
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
    if not path.stat().st_size:  # not even its head
        path.unlink()


def widen(path: Path, columns: Sequence[str]) -> None:
    """Give a file that is there already the columns that it lacks, empty in the rows that it has.

    Args:
        path: A ``results.csv`` of Ultralytics; nothing is done when it does not exist yet.
        columns: Names that the header shall have, at its end where they are missing.
    """
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    missing = [name for name in columns if lines and name not in lines[0].split(",")]
    if missing:
        _write(path, [lines[0] + "," + ",".join(missing), *(line + "," * len(missing) for line in lines[1:])])


def keep_epochs(path: Path, epochs: int, saved: str = "") -> None:
    """Remove the rows that a resumed run will write again, and one that a killed run left unfinished.

    Args:
        path: A ``results.csv``.
        epochs: How many epochs stay.
        saved: The file's content when the run was saved, in case that it is not there any more.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else saved
    lines = text.splitlines()
    if not lines:
        return
    width = lines[0].count(",")
    kept = [line for line in lines[1:] if line.count(",") == width and _epoch(line) <= epochs]
    if not path.is_file() or [lines[0], *kept] != lines or not text.endswith("\n"):
        _write(path, [lines[0], *kept])


def _epoch(line: str) -> float:
    try:
        return float(line.split(",")[0])
    except ValueError:
        return float("inf")


def _write(path: Path, lines: list[str]) -> None:
    write_whole(path, ("\n".join(lines) + "\n").encode())
