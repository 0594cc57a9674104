"""Trial: one run of a comparison, with its choice and the words that train it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a comparison."""

    name: str
    """Its folder below that of the comparison; unique."""
    group: str
    """Its name without the seed: runs of one group differ only by chance."""
    choice: Mapping[str, Any]
    """Its values of ``trainer``, ``preset``, ``optimizer``, ``lr0`` and ``seed``, as far as they vary."""
    stock: bool = False
    """Trained with Ultralytics' own trainer, as a baseline."""
    data: str
    """The data set, for a resume."""
    words: tuple[str, ...]
    """The words after ``yolo-stable train``, without those that name the folder."""
    preset: str | None = None
    """As given with ``--preset``."""
    imports: tuple[str, ...] = ()
    """As given with ``--import``."""
    epochs: int = 0
    """Epochs to train."""

    def folder(self, comparison: Path) -> Path:
        """Return the run's folder."""
        return comparison / self.name

    def log(self, comparison: Path) -> Path:
        """Return the file of all its output."""
        return comparison / f"{self.name}.log"

    def start_words(self, comparison: Path) -> list[str]:
        """Return the words that train it from the start, in a new folder."""
        words = [*self.words, *self._imports(), f"project={comparison}", f"name={self.name}", "exist_ok=True"]
        return [*words, "--preset", self.preset] if self.preset is not None else words

    def resume_words(self, comparison: Path) -> list[str]:
        """Return the words that resume it from its last checkpoint, which holds all other settings."""
        return [self.data, f"model={self.last(comparison)}", "resume=True", *self._imports()]

    def _imports(self) -> list[str]:
        return [word for module in self.imports for word in ("--import", module)]

    def last(self, comparison: Path) -> Path:
        """Return the checkpoint to resume from."""
        return self.folder(comparison) / "weights" / "last.pt"
