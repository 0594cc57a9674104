"""Incident folder: ``incidents/`` of a run, numbered, and bounded however many batches are bad."""

from __future__ import annotations

import re
from pathlib import Path

EXAMINED = 10
"""Incidents examined for each one written in full."""
NUMBER = re.compile(r"(\d{4,})(-rank\d+)?")


class IncidentFolder:
    """Counts the incidents of a run and decides what to do with each.

    The first ``keep`` are written in full, ten times as many are examined, and further ones are only counted. A resumed run
    continues from the existing folders.

    Args:
        folder: ``incidents/`` of the run; the first incident makes it.
        keep: How many are written in full, >= 1.
        rank: Of this process; -1 without others.

    Examples:
        >>> incidents = IncidentFolder(Path("run/incidents"), keep=1)
        >>> incidents.admit(), incidents.next_folder().as_posix()
        (True, 'run/incidents/0001')
        >>> incidents.written()
        >>> incidents.next_folder() is None, incidents.admit()
        (True, True)
    """

    def __init__(self, folder: Path, keep: int, rank: int = -1) -> None:
        self.folder, self.keep = folder, keep
        self.counted = 0
        """All incidents of this process so far."""
        self._suffix = f"-rank{rank}" if rank > 0 else ""
        self._written, self._number = 0, 0
        for path in folder.glob("*") if folder.is_dir() else ():
            match = NUMBER.fullmatch(path.name)
            if match and (match[2] or "") == self._suffix:
                self._written += 1
                self._number = max(self._number, int(match[1]))

    def admit(self) -> bool:
        """Count an incident, and return whether to examine it."""
        self.counted += 1
        return self.counted <= self.keep * EXAMINED

    def next_folder(self) -> Path | None:
        """Return the folder for the next incident; None once enough are written."""
        return None if self._written >= self.keep else self.folder / f"{self._number + 1:04d}{self._suffix}"

    def written(self) -> None:
        """Count the folder of :meth:`next_folder`, which has been made."""
        self._written += 1
        self._number += 1
