"""Layout of a data set, known before its files are looked at: splits, classes, keypoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .finding import DataFinding, Severity
from .rules import found

TASKS = ("detect", "segment", "semantic", "depth", "pose", "obb", "classify")
MAPS = {"semantic": "masks", "depth": "depth maps"}
"""Tasks with a label for each pixel, in files that are not read: only their images are checked."""
SPLITS = ("train", "val", "test")
WHERE = "check"
"""What the messages of this verb start with."""


@dataclass
class Layout:
    """Where the images of a data set are, and what its classes are."""

    place: Path
    """The ``data.yaml``; for classification the folder."""
    root: Path
    """What paths are relative to."""
    task: str | None
    """None: to be told from the labels."""
    names: dict[int, str] = field(default_factory=dict)
    splits: dict[str, list[Path]] = field(default_factory=dict)
    """Folders and lists of images by split."""
    keypoints: tuple[int, int] = (0, 0)
    """Keypoints of an object, and numbers of each: 2 or 3."""
    channels: int = 3
    """Of an image, as the description asks for."""
    description: dict[str, Any] = field(default_factory=dict)
    """The YAML as it is."""
    lines: dict[str, int] = field(default_factory=dict)
    """Lines of keys and, as ``names/ID``, of classes."""
    findings: list[DataFinding] = field(default_factory=list)

    @property
    def told_by_folders(self) -> str | None:
        """The task with a label for each pixel whose folder lies where that of label rows is missing, if one does."""
        if (self.root / "labels").is_dir():
            return None
        if self.description.get("masks_dir") or (self.root / "masks").is_dir():
            return "semantic"
        return "depth" if "depth_scale" in self.description or (self.root / "depth").is_dir() else None

    def listed(self, split: str) -> bool:
        """Say whether a split may list an image more than once: it has several sources, or a list."""
        sources = self.splits.get(split, [])
        return len(sources) > 1 or any(not source.is_dir() for source in sources)

    def add(self, rule: str, message: str, key: str = "", severity: Severity | None = None) -> None:
        """Add a finding at a key's line."""
        self.findings.append(found(rule, self.place, message, line=self.lines.get(key), severity=severity))
