"""``results.csv`` of a run that was begun without the guard."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


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
    if not missing:
        return
    rows = [lines[0] + "," + ",".join(missing), *(line + "," * len(missing) for line in lines[1:])]
    part = path.with_name(path.name + ".part")
    part.write_text("\n".join(rows) + "\n", encoding="utf-8")
    os.replace(part, path)
