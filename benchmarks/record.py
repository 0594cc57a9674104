"""Results with the machine they came from: a table on the terminal, and a JSON file that is kept."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from yolo_stable.validate.driver import processor_name

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Return what a reader needs to judge the figures: processor, threads, versions."""
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "ultralytics")},
    }


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "q1": low, "q3": high}


def keep(name: str, rows: list[dict[str, Any]], settings: Mapping[str, Any], path: Path | None = None) -> Path:
    """Write the results of a benchmark.

    Args:
        name: Of the benchmark.
        rows: One dictionary for each case.
        settings: What it was called with.
        path: Where to; None: ``benchmarks/results/NAME.json``.

    Returns:
        The file.
    """
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    date = datetime.now(timezone.utc).date().isoformat()
    content = {"benchmark": name, "date": date, "machine": machine(), "settings": dict(settings), "rows": rows}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return path


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(title=title, title_justify="left")
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*(f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()))
    Console(width=140).print(table)
