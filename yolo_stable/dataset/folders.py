"""Data sets for classification: a folder for each split, and in it one for each class."""

from __future__ import annotations

import os
from pathlib import Path

from .finding import some
from .layout import SPLITS, Layout
from .rules import found

NAMES_FILE = ".ndjson.yaml"
"""Beside the splits, where Ultralytics unpacked a platform's data: names of the classes, whose folders are numbers."""
_NAMES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
"""Where Ultralytics looks for a split, in this order."""


def read_folders(path: Path, only: tuple[str, ...]) -> Layout:
    """Read the splits and classes of a folder.

    Args:
        path: What holds ``train`` and ``val``.
        only: Splits that are wanted.

    Returns:
        The layout; its names are those of the folders in ``train``, in alphabetical order as Ultralytics numbers them.
    """
    layout = Layout(place=path, root=path, task="classify")
    folders: dict[str, Path] = {}
    for split in SPLITS:
        there = next((path / name for name in _NAMES[split] if (path / name).is_dir()), None)
        if there is not None:
            folders[split] = there
    if "val" not in folders and "test" in folders:
        folders["val"] = folders.pop("test")  # Ultralytics validates on it
    for split in ("train", "val"):
        if split not in folders:
            layout.findings.append(found("path-missing", path / split, f"there is no folder {split} for the classes"))
    classes = {split: class_names(folder) for split, folder in folders.items()}
    expected = classes.get("train") or next(iter(classes.values()), [])
    layout.names = dict(enumerate(expected))
    for split, folder in folders.items():
        lacking, extra = sorted(set(expected) - set(classes[split])), sorted(set(classes[split]) - set(expected))
        if lacking or extra:
            wrong = [f"lacks {some(lacking)}"] if lacking else []
            wrong += [f"has {some(extra)} that train lacks"] if extra else []
            layout.findings.append(found("class-folders", folder, f"{split} {' and '.join(wrong)}"))
    layout.splits = {split: [folder] for split, folder in folders.items() if split in only}
    return layout


def class_of(image: str, source: Path) -> str | None:
    """Return the class folder that an image lies in, or None when it lies in none.

    Examples:
        >>> class_of("/d/train/cat/night/1.jpg", Path("/d/train"))
        'cat'
        >>> class_of("/d/train/1.jpg", Path("/d/train")) is None
        True
    """
    parts = Path(image).relative_to(source).parts
    return parts[0] if len(parts) > 1 else None


def class_names(folder: Path) -> list[str]:
    """Return the folders in a folder, in the order in which Ultralytics numbers them."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())
