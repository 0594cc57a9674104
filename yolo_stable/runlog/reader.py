"""Log reader: the events of a ``guard.jsonl`` one by one, whatever has happened to the file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._shared.numbers import count, text
from .events import SCHEMA

LONGEST = 1 << 24
"""Most bytes of a line: a window of a thousand files with long paths has a tenth of it."""


@dataclass
class LogDamage:
    """Damaged and unknown lines of a log."""

    lines: int = 0
    broken: int = 0
    """Lines that are no event, except the last one."""
    first_broken: int = 0
    """The first of them, from 1."""
    cut: bool = False
    """Whether the last line is unfinished."""
    unknown: int = 0
    """Lines of an unknown schema."""
    schema: str = ""
    """The first of these."""

    def notices(self, name: str) -> list[str]:
        """Return the damage in words, a sentence each.

        Examples:
            >>> LogDamage(lines=9, broken=1, first_broken=4).notices("guard.jsonl")
            ['guard.jsonl: 1 line is damaged (line 4) and left out.']
        """
        said = []
        if not self.lines:
            said.append(f"{name} is empty.")
        if self.broken:
            where = f"line {self.first_broken}" if self.broken == 1 else f"the first is line {self.first_broken}"
            said.append(f"{name}: {count(self.broken, 'line is', 'lines are')} damaged ({where}) and left out.")
        if self.cut:
            said.append(f"{name}: the last line is unfinished, as after a killed run, and left out.")
        if self.unknown:
            said.append(
                f"{name}: {count(self.unknown, 'line is', 'lines are')} of schema {self.schema}, which this version of"
                f" yolo-stable does not know (it knows {SCHEMA}): they may mean something else."
            )
        return said


def read_events(path: Path, damage: LogDamage | None = None) -> Iterator[dict[str, Any]]:
    """Yield the events of a log in order, in bounded memory, without damaged lines.

    Args:
        path: A ``guard.jsonl``.
        damage: Receives what could not be read.

    Raises:
        OSError: The file cannot be read.
    """
    damage = damage if damage is not None else LogDamage()
    with open(path, "rb") as file:
        while line := file.readline(LONGEST):
            damage.lines += 1
            finished, event = line.endswith(b"\n"), None
            if not finished and len(line) == LONGEST:  # no event is so long: skip to its end
                while not finished and (rest := file.readline(LONGEST)):
                    finished = rest.endswith(b"\n")
            else:
                with contextlib.suppress(ValueError, RecursionError):
                    event = json.loads(line)
            if not isinstance(event, dict) or not isinstance(event.get("event"), str):
                if not line.strip():
                    continue
                if finished:
                    damage.first_broken = damage.first_broken or damage.lines
                    damage.broken += 1
                else:
                    damage.cut = True
                continue
            schema = event.get("schema", SCHEMA)
            if type(schema) is not int or not 1 <= schema <= SCHEMA:
                damage.unknown += 1
                damage.schema = damage.schema or text(schema, 40)
            yield event
