"""Run folder: checked before a run makes it, and removed if the run never began."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from ..errors import InvalidCallError


class RunFolder:
    """A folder that a run will make.

    Raises:
        InvalidCallError: The folder cannot be made or written to.
    """

    def __init__(self, path: Path, where: str) -> None:
        self.path = path
        try:
            self._there = next(parent for parent in (path, *path.parents) if parent.exists())
            os.rmdir(tempfile.mkdtemp(prefix=".yolo-stable-", dir=self._there))  # permissions alone do not decide it
        except OSError as error:
            raise InvalidCallError(
                f"{where}: the run's folder {path} cannot be made or written: {error.strerror or error}."
                " Name another place with project=FOLDER."
            ) from error

    def remove_unused(self, made: Path) -> None:
        """Remove the folder of a run that failed, unless it was there before or training had begun."""
        if made != self.path or self._there == self.path or has_trained(self.path):
            return
        shutil.rmtree(self.path, ignore_errors=True)
        for parent in self.path.parents:
            if parent == self._there:
                return
            with contextlib.suppress(OSError):  # others may have put something there
                parent.rmdir()


def has_trained(folder: Path) -> bool:
    """Say whether a run's folder holds weights, results, or batches that the guard judged."""
    if (folder / "results.csv").exists() or any((folder / "weights").glob("*")):
        return True
    summary = folder / "summary.json"
    if not summary.exists():
        return (folder / "guard.jsonl").exists()  # a killed process wrote no more
    try:
        return any(json.loads(summary.read_text(encoding="utf-8"))["counts"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return True
