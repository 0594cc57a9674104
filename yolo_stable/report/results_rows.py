"""The rows of a ``results.csv``, by epoch."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

from .numbers import count, number

ROWS = 100_000
COLUMNS = 200


@dataclass
class Results:
    """What Ultralytics wrote after each epoch; numbers may be NaN, and what is no number is left out."""

    epochs: list[int] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    """By column, as ``metrics/mAP50-95(B)``; one for each of ``epochs``."""
    columns: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def column(self, name: str) -> list[tuple[int, float]]:
        """Return a column as epochs and numbers, without the rows that lack it."""
        return [(epoch, row[name]) for epoch, row in zip(self.epochs, self.rows, strict=True) if name in row]

    @property
    def measure(self) -> str:
        """The column that says best how good the network is; empty when there is none.

        Of a task with boxes and masks or points, these: they are what it is trained for.
        """
        found = [name for name in self.columns if name.startswith("metrics/mAP50-95")]
        found += [name for name in self.columns if name == "metrics/accuracy_top1"]
        return found[-1] if found else ""


def read_results(path: Path) -> Results:
    """Read a ``results.csv``; of an epoch that is there twice, the later row.

    Raises:
        OSError: The file cannot be read.
    """
    found: dict[int, dict[str, float]] = {}
    results, broken = Results(), 0
    head: list[str] = []
    with open(path, encoding="utf-8", errors="replace", newline="") as file:
        lines = csv.reader(line.replace("\0", "") for line in file)
        try:
            head = [name.strip() for name in next(lines, [])][:COLUMNS]
            for line in lines:
                epoch = number(line[0].strip()) if line else None
                if epoch is None or not 0 <= epoch <= ROWS or len(line) < len(head):
                    broken += bool(line)
                    continue
                values = {name: number(value.strip()) for name, value in zip(head, line, strict=False)}
                found[int(epoch)] = {name: value for name, value in values.items() if value is not None}
        except csv.Error:
            broken += 1
    results.columns = head if found else []
    results.epochs = sorted(found)
    results.rows = [found[epoch] for epoch in results.epochs]
    if not found:
        results.notices.append("results.csv has no row: no epoch was finished.")
    if broken:
        results.notices.append(f"results.csv: {count(broken, 'row is', 'rows are')} damaged and left out.")
    return results
