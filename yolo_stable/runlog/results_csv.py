"""Results table: reads the rows of ``results.csv`` by epoch, and mends them for a resumed run.

Ultralytics appends the rows. To add columns or drop rows, this module replaces the whole file.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .._shared.atomic_file import write_whole
from .._shared.numbers import count, number, text, whole

ROWS = 100_000
COLUMNS = 200
MEASURES = ("metrics/mAP50-95", "metrics/mAP_0.5:0.95", "metrics/accuracy_top1")
"""Names of the main measure in Ultralytics and YOLOv5; a column's name may go on, as with ``(M)``."""


@dataclass
class Results:
    """The rows; numbers may be NaN, and other cells are left out."""

    epochs: list[int] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    """By column, as ``metrics/mAP50-95(B)``; one for each of ``epochs``."""
    columns: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    known: bool = True
    """False: an unknown table, of which nothing was read."""

    def column(self, name: str) -> list[tuple[int, float]]:
        """Return a column as epochs and numbers, without the rows that lack it."""
        return [(epoch, row[name]) for epoch, row in zip(self.epochs, self.rows, strict=True) if name in row]

    @property
    def measure(self) -> str:
        """The column of the main measure; empty without one. With boxes and masks or points: that of masks or points."""
        for known in MEASURES:
            found = [name for name in self.columns if name.startswith(known)]
            if found:
                return found[-1]
        return ""

    @property
    def beside(self) -> str:
        """The column to show beside the measure, such as mAP50; empty without one."""
        pairs = (("50-95", "50"), ("_0.5:0.95", "_0.5"), ("top1", "top5"))
        name = next((self.measure.replace(a, b) for a, b in pairs if a in self.measure), "")
        return name if name in self.columns else ""

    @property
    def from_zero(self) -> bool:
        """Whether epochs count from 0, as in YOLOv5."""
        return self.epochs[:1] == [0]

    @property
    def done(self) -> int:
        """Epochs finished."""
        return self.epochs[-1] + self.from_zero if self.epochs else 0


def read_results(path: Path) -> Results:
    """Read a ``results.csv``; the later row of a repeated epoch counts.

    Raises:
        OSError: The file cannot be read.
    """
    found: dict[int, dict[str, float]] = {}
    results, broken, again = Results(), 0, 0
    head: list[str] = []
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        lines = csv.reader(_whole(file))
        try:
            head = [name.strip() for name in next(lines, [])][:COLUMNS]
            place = head.index("epoch") if "epoch" in head else None
            for line in lines if place is not None else ():
                cells = [cell.strip() for cell in line]
                epoch = whole(number(cells[place]), ROWS) if place is not None and place < len(cells) else None
                if epoch is None or len(cells) < len(head):
                    again += cells[: len(head)] == head
                    broken += bool(line) and cells[: len(head)] != head
                    continue
                values = {name: number(cell) for name, cell in zip(head, cells, strict=False)}
                found[epoch] = {name: value for name, value in values.items() if value is not None}
        except csv.Error:
            broken += 1
    results.columns = head if found else []
    results.epochs = sorted(found)
    results.rows = [found[epoch] for epoch in results.epochs]
    if head and "epoch" not in head:
        results.known = False
        results.notices.append(
            f"results.csv is an unknown table: it has no column 'epoch', but begins with {text(', '.join(head), 80)!r}."
        )
        return results
    if again:
        results.notices.append(
            f"results.csv has its header {again + 1} times, as after several runs into one folder: the later row of an epoch"
            " counts."
        )
    if not found:
        results.notices.append("results.csv has no row: no epoch was finished.")
    if broken:
        results.notices.append(f"results.csv: {count(broken, 'row is', 'rows are')} damaged and left out.")
    return results


def _whole(file: Iterable[str]) -> Iterator[str]:
    """Yield lines; drop the last cell of an unfinished line, which may lack a part."""
    for line in file:
        line = line.replace("\0", "")
        yield line if line.endswith(("\n", "\r")) else line.rpartition(",")[0] + ","


def end_last_row(path: Path) -> None:
    """Cut off a last row that a full disk left unfinished: the next one would be written into it.

    Raises:
        OSError: The file cannot be read or written.
    """
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        content = file.read()
        if content and not content.endswith(b"\n"):
            file.truncate(content.rfind(b"\n") + 1)
    if not path.stat().st_size:  # not even a header
        path.unlink()


def widen(path: Path, columns: Sequence[str]) -> None:
    """Append missing columns to a ``results.csv`` of Ultralytics, empty in its rows; do nothing without a file."""
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
        saved: The file's content when the run was saved, used if the file is gone.
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
