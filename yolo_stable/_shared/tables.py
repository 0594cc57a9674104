"""Plain tables for a logger that writes to the terminal and to files."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table


def render_table(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    """Return a two-column table as plain text."""
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE_HEAD, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, str(value))
    out = io.StringIO()
    # In a notebook, rich would show the table itself and write nothing into the file.
    plain: dict[str, Any] = {"color_system": None, "markup": False, "emoji": False, "highlight": False}
    Console(file=out, width=110, force_terminal=False, force_jupyter=False, **plain).print(table)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).rstrip()
