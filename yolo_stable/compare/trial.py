"""One run of a comparison: what it was chosen to be, and the words that train it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SEED = "seed"
"""The choice that tells repetitions of the same thing apart."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a comparison."""

    name: str
    """Its folder below that of the comparison; no two runs have the same."""
    group: str
    """Its name without the seed: runs of one group differ by chance only."""
    choice: Mapping[str, Any]
    """What was chosen for it: ``trainer``, ``preset``, ``optimizer``, ``lr0``, ``seed``, as far as they were asked for."""
    stock: bool = False
    """Trained by Ultralytics' own trainer, as a baseline."""
    data: str
    """The data set, for a resume."""
    words: tuple[str, ...]
    """The words behind ``yolo-stable train``, without those that name the folder."""
    preset: str | None = None
    """As given with ``--preset``."""
    imports: tuple[str, ...] = ()
    """As given with ``--import``."""
    epochs: int = field(default=0)
    """How many it is trained for."""

    def folder(self, comparison: Path) -> Path:
        """Return the run's folder."""
        return comparison / self.name

    def log(self, comparison: Path) -> Path:
        """Return the file that all its output goes to."""
        return comparison / f"{self.name}.log"

    def begin(self, comparison: Path) -> list[str]:
        """Return the words that train it from the start, in a folder that is not there."""
        words = [*self.words, *self._imports(), f"project={comparison}", f"name={self.name}", "exist_ok=True"]
        return [*words, "--preset", self.preset] if self.preset is not None else words

    def go_on(self, comparison: Path) -> list[str]:
        """Return the words that resume it from its last checkpoint; all else is in there."""
        return [self.data, f"model={self.last(comparison)}", "resume=True", *self._imports()]

    def _imports(self) -> list[str]:
        return [word for module in self.imports for word in ("--import", module)]

    def last(self, comparison: Path) -> Path:
        """Return the checkpoint that it is resumed from."""
        return self.folder(comparison) / "weights" / "last.pt"
