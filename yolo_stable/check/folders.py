"""Class folders: a data set for classification has a folder for each split, and in it one for each class."""

from __future__ import annotations

import os
from pathlib import Path

from .._shared.text import listed
from .files import FORMATS
from .finding import Severity
from .layout import SPLITS, Layout
from .rules import found

NAMES_FILE = ".ndjson.yaml"
"""File with the names of classes whose folders are numbers, where Ultralytics unpacked a platform's data."""
TOOLS = frozenset({"__MACOSX", "__pycache__", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
"""Folders that tools leave, besides names with a dot (Jupyter, Git) or an @ (file servers)."""
_NAMES = {"train": ("train",), "val": ("val", "validation", "valid"), "test": ("test",)}
"""Where Ultralytics looks for a split, in this order."""


def read_folders(path: Path, only: tuple[str, ...]) -> Layout:
    """Read the splits in ``only``, and the classes: the folders of ``train`` in the order of Ultralytics."""
    layout = Layout(place=path, root=path, task="classify")
    folders: dict[str, Path] = {}
    for split in SPLITS:
        there = next((path / name for name in _NAMES[split] if (path / name).is_dir()), None)
        if there is not None:
            folders[split] = there
    if not folders and any(_has_images(path / name) for name in class_names(path)):
        return _unsplit(layout, only)
    if "val" not in folders and "test" in folders:
        folders["val"] = folders.pop("test")  # Ultralytics validates on it
    for split in ("train", "val"):
        if split not in folders:
            layout.findings.append(found("path-missing", path / split, f"the folder {split} is missing"))
    classes = {split: class_names(folder) for split, folder in folders.items()}
    expected = classes.get("train") or next(iter(classes.values()), [])
    _name(layout, folders.get("train", path), expected)
    for split, folder in folders.items():
        _compare(layout, split, folder, expected, classes[split])
    layout.splits = {split: [folder] for split, folder in folders.items() if split in only}
    return layout


def _unsplit(layout: Layout, only: tuple[str, ...]) -> Layout:
    """Take the folder's own folders for classes, all for training: Ultralytics splits only such a data set itself."""
    root = layout.place
    message = (
        f"the folder train is missing: Ultralytics copies the classes to {root}_split, 80 % of the images for training"
    )
    layout.findings.append(found("split-made", root, message))
    _name(layout, root, class_names(root))
    layout.splits = {"train": [root]} if "train" in only else {}
    classes = {name: _images(root / name) for name in layout.names.values()}
    for name, images in classes.items():
        if len(images) == 1:
            message = "holds 1 image, which goes to validation; training needs two of a class"
            layout.findings.append(found("split-made", root / name, message, severity=Severity.WARNING))
        within = sorted({image.relative_to(root / name).parts[0] for image in images})
        if images and not any((root / name / part).is_file() for part in within):
            message = f"holds images only in folders ({listed(within)}), which count as one class"
            layout.findings.append(found("split-made", root / name, message, severity=Severity.WARNING))
    if max(map(len, classes.values())) < 2:
        message = "no class has two images: all go to validation, none to training"
        layout.findings.append(found("split-empty", root, message))
    _compare_made(layout, {image.relative_to(root) for images in classes.values() for image in images})
    return layout


def _compare_made(layout: Layout, images: set[Path]) -> None:
    """Report images of an earlier splitting that the folder no longer has: Ultralytics still trains on them."""
    made = Path(f"{layout.place}_split")
    left = [path for split in ("train", "val") for path in _images(made / split)]
    stale = [path for path in left if Path(*path.relative_to(made).parts[1:]) not in images]
    if stale:
        message = f"{len(stale)} images in {made} are not in {layout.place} but take part: {listed(stale)}"
        layout.findings.append(found("split-made", made, message, severity=Severity.WARNING))


def _images(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*.*") if path.suffix[1:].lower() in FORMATS]


def _has_images(folder: Path) -> bool:
    return any(path.suffix[1:].lower() in FORMATS for path in folder.rglob("*.*"))


def _name(layout: Layout, folder: Path, names: list[str]) -> None:
    """Take the names of the classes, and report folders that are hardly classes and names that hardly differ."""
    layout.names = dict(enumerate(names))
    if len(names) == 1:
        message = f"{names[0]} is the only class: there is nothing to learn"
        layout.findings.append(found("class-folders", folder, message, severity=Severity.WARNING))
    seen: dict[str, str] = {}
    for number, name in layout.names.items():
        if is_tools(name):
            message = f"is hidden or made by a tool, and counts as class {number}"
            layout.findings.append(found("class-hidden", folder / name, message))
        other = seen.setdefault(name.strip().lower(), name)
        if other != name:
            layout.findings.append(
                found("names-twice", folder / name, f"classes {other!r} and {name!r} have nearly one name")
            )


def _compare(layout: Layout, split: str, folder: Path, expected: list[str], names: list[str]) -> None:
    """Report where the classes of a split are not those of training.

    Ultralytics goes by names: it leaves out images of classes that training lacks, and does without those that this split lacks.
    Only where no name matches it goes by the order of the folders.
    """
    lacking = sorted(set(expected) - set(names))
    extra = sorted(set(names) - set(expected))
    if extra and expected and set(expected).isdisjoint(names):
        message = f"{split} has {listed(extra)} and none of train's {listed(expected)}: they are matched by their order"
        layout.findings.append(found("class-folders", folder, message))
        return
    for name in filter(is_tools, extra):
        message = f"is hidden or made by a tool; Ultralytics drops its images in {split}"
        layout.findings.append(found("class-hidden", folder / name, message, severity=Severity.WARNING))
    extra = [name for name in extra if not is_tools(name)]
    lacking = [name for name in lacking if not is_tools(name)]
    lost = [name for name in extra if _has_images(folder / name)]
    if lacking or extra:
        wrong = [f"lacks {listed(lacking)}"] if lacking else []
        wrong += [f"has {listed(extra)} that train lacks"] if extra else []
        wrong += ["whose images Ultralytics drops"] if lost else []
        severity = None if lost else Severity.WARNING
        layout.findings.append(found("class-folders", folder, f"{split} {', '.join(wrong)}", severity=severity))


def is_tools(name: str) -> bool:
    """Say whether a tool left a folder of this name, which is no class.

    Examples:
        >>> is_tools(".ipynb_checkpoints"), is_tools("cat")
        (True, False)
    """
    return name.startswith((".", "@")) or name in TOOLS


def class_of(image: str, source: Path) -> str | None:
    """Return the class folder of an image, or None.

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
