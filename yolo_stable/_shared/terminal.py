"""Terminal: the console of the verbs, and sheets, which are tables, or lists where a table would break words."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TextIO

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPE = 160
"""Columns of a pipe or a file, which has no width of its own."""
NARROW = 100
"""Columns below which a sheet with paragraphs is a list."""
READABLE = 30
"""Least columns of a paragraph in a table, unless it is shorter."""
_INDENT = "  "


def console(stream: TextIO | None = None) -> Console:
    """Return a console: coloured and as wide as the terminal, plain and wide elsewhere.

    Args:
        stream: None: stdout as it is now, even if it is replaced later.
    """
    to = sys.stdout if stream is None else stream
    on_terminal = to.isatty()
    # COLUMNS, which rich reads, says how wide a pipe is for its reader.
    measured = on_terminal or re.fullmatch("0*[1-9][0-9]*", os.environ.get("COLUMNS", ""), re.ASCII)
    return Console(
        file=to, width=None if measured else PIPE, no_color=None if on_terminal else True,
        force_terminal=None if on_terminal else False, highlight=False, markup=False, emoji=False,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a sheet, and what its cells are in a list."""

    title: str
    """May have several lines in a table."""
    kind: Literal["head", "figure", "text"] = "figure"
    """In a list ``head``: in the first line of the row; ``figure``: after its title, beside others; ``text``: a paragraph."""
    right: bool = False
    """Whether a table aligns it to the right."""


class Sheet:
    """Rows under titles.

    Args:
        *columns: Those of kind ``head`` come first.
        title: Above all.
    """

    def __init__(self, *columns: Column, title: str = "") -> None:
        self._columns = columns
        self._title = title
        self._rows: list[tuple[list[Text], str]] = []

    def add(self, *cells: Text | str, style: str = "") -> None:
        """Add a row with a cell per column; ``style`` is that of the whole row."""
        self._rows.append(([Text(cell) if isinstance(cell, str) else cell for cell in cells], style))

    def print(self, to: Console) -> None:
        """Print a table if it breaks no words and the console has room for paragraphs, else a list."""
        paragraphs = any(column.kind == "text" for column in self._columns)
        widths = None if paragraphs and to.width < NARROW else self._widths(to.width)
        if widths is None:
            self._print_list(to)
        else:
            self._print_table(to, widths)

    def _widths(self, room: int) -> list[int] | None:
        """Return the width of each column; None: no room."""
        room -= 3 * len(self._columns) + 1  # the box's lines and blanks
        cells = [[Text(column.title), *(row[i] for row, _ in self._rows)] for i, column in enumerate(self._columns)]
        least = [max(_longest(re.findall(r"[^\s,]*,|[^\s,]+", cell.plain)) for cell in column) for column in cells]
        wanted = [max(_longest(cell.plain.split("\n")) for cell in column) for column in cells]
        for i, column in enumerate(self._columns):
            if column.kind == "text":
                least[i] = max(least[i], min(wanted[i], READABLE))
        spare, wish = room - sum(least), sum(wanted) - sum(least)
        if spare < 0:
            return None
        if wish <= spare:
            return wanted
        return [low + spare * (high - low) // wish for low, high in zip(least, wanted, strict=True)]

    def _print_table(self, to: Console, widths: Sequence[int]) -> None:
        table = Table(box=box.SIMPLE_HEAD, title=self._title or None, title_justify="left")
        for column, width in zip(self._columns, widths, strict=True):
            table.add_column(Text(column.title), width=width, justify="right" if column.right else "left")
        for cells, style in self._rows:
            table.add_row(*(_cell(cell, width) for cell, width in zip(cells, widths, strict=True)), style=style)
        to.print(table)

    def _print_list(self, to: Console) -> None:
        if self._title:
            to.print(Text(self._title, style="italic"), soft_wrap=True)
        for cells, style in self._rows:
            kinds = {kind: [pair for pair in zip(self._columns, cells, strict=True) if pair[0].kind == kind and pair[1]]
                     for kind in ("head", "figure", "text")}  # fmt: skip
            if kinds["head"]:
                print_folded(to, Text(_INDENT).join(cell for _, cell in kinds["head"]), style)
            figures = [Text(f"{column.title} ".replace("\n", " ")) + cell for column, cell in kinds["figure"]]
            for paragraph in [*_lines(figures, to.width - len(_INDENT)), *(cell for _, cell in kinds["text"])]:
                print_folded(to, paragraph, style, _INDENT)
        to.print()


def _cell(text: Text, width: int) -> Text:
    return Text("\n").join(folded(text, width))


def folded(text: Text, width: int) -> list[Text]:
    r"""Return the lines of a text, none wider than ``width`` except an unbreakable part of a word.

    Lines end after a word, or within a wider word after a comma.

    Examples:
        >>> [line.plain for line in folded(Text("stock,optimizer=SGD,lr0=0.01 done\nin 3 s"), 20)]
        ['stock,optimizer=SGD,', 'lr0=0.01 done', 'in 3 s']
    """
    lines: list[Text] = []
    for paragraph in text.split("\n", allow_blank=True):
        cuts, column, position = [], 0, 0
        for word in re.findall(r"^\s+|\S+\s*", paragraph.plain):
            for part in [word] if cell_len(word.rstrip()) <= width else re.findall(r"[^,]*,\s*|[^,]+", word):
                if column and column + cell_len(part.rstrip()) > width:
                    cuts.append(position)
                    column = 0
                column += cell_len(part)
                position += len(part)
        lines += paragraph.divide(cuts)
    for line in lines:
        line.rstrip()
    return lines


def _lines(figures: Sequence[Text], width: int) -> list[Text]:
    """Return figures in lines that fit, with commas between; each stays with its title."""
    lines: list[Text] = []
    for figure in figures:
        if lines and cell_len(f"{lines[-1].plain}, {figure.plain},") <= width:
            lines[-1] += Text(", ") + figure
        else:
            if lines:
                lines[-1] += Text(",")
            lines.append(figure)
    return lines


def _longest(texts: Iterable[str]) -> int:
    return max(map(cell_len, texts), default=0)


def print_folded(to: Console, text: Text | str, style: str = "", indent: str = "") -> None:
    """Print text in lines that fit; the terminal wraps a longer word, so that it can be copied."""
    for line in folded(Text(text) if isinstance(text, str) else text, max(to.width - len(indent), 1)):
        line.stylize_before(style)
        to.print(Text(indent) + line, soft_wrap=True)
