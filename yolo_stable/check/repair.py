"""Cleaned copy of a data set; the original is only read."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .._shared.atomic_file import write_whole
from ..errors import InvalidCallError
from .files import file_of, label_path
from .finding import Severity
from .folders import NAMES_FILE, class_names, class_of
from .label_copy import LabelCopy
from .label_file import Format
from .layout import MAPS, WHERE, Layout
from .opening import BROKEN
from .picture import mended, new_ending
from .report import DataReport
from .selection import Selection, select

REDRAWN = frozenset({"image-rotated", "image-cmyk", "image-16bit", "image-float", "image-alpha", "image-trailing"})
"""Rules whose images are saved anew."""
DROPPED_LINES = frozenset({"box-zero-area", "polygon-zero-area", "box-duplicate"})
"""Rules whose lines describe nothing, or nothing new."""
OWN_KEYS = frozenset({"path", "train", "val", "test", "minival", "names", "nc", "download", "masks_dir", "yaml_file"})
"""Keys that the copy writes itself, or that say where the original lies."""
CHANGES = "changes.json"


@dataclass
class Repair:
    """What was done."""

    folder: Path
    copied: int = 0
    """Image files; an image that a split lists again is copied once."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Files that were not copied, each with the rule."""
    redrawn: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, int, str]] = field(default_factory=list)
    """Lines of label files that were not copied."""
    clipped: list[tuple[str, int]] = field(default_factory=list)
    """Lines whose coordinates were clipped to the image."""
    renumbered: list[tuple[int, int, str]] = field(default_factory=list)
    """Classes with another number in the copy: old, new and name."""
    unmended: list[tuple[str, str, str]] = field(default_factory=list)
    """Errors that remain: file, rule, and the finding or the reason."""

    @property
    def verdict(self) -> str:
        """One line that says what was done."""
        return (
            f"{self.folder}: {self.copied} images copied, {len(self.left_out)} left out, {len(self.redrawn)} saved again;"
            f" {len(self.dropped)} lines dropped, {len(self.clipped)} clipped; {len(self.unmended)} errors remain."
            f" {CHANGES} there lists them."
        )

    def judged(self, copy: DataReport) -> None:
        """Note the errors that a check of the copy found, and write the list of changes again."""
        self.unmended += [
            (finding.path, finding.rule.id, copy.one_line(finding))
            for finding in copy.findings
            if finding.severity is Severity.ERROR
        ]
        self.write()

    def write(self) -> None:
        """Write the list of changes."""
        names = ("left_out", "redrawn", "dropped", "clipped", "renumbered", "unmended")
        changes = {name: getattr(self, name) for name in names}
        write_whole(self.folder / CHANGES, json.dumps(changes, indent=1).encode("ascii"))


def check_target(out: Path, layout: Layout) -> None:
    """Refuse a folder for the copy that is in use or inside the data.

    Raises:
        InvalidCallError: It is a file, is not empty, or lies inside the data set or around it; or the data set has masks.
    """
    if (task := layout.task or layout.told_by_folders) in MAPS:
        raise InvalidCallError(
            f"{WHERE}: fix={out} copies rows of labels, and {layout.place} has {MAPS[task]}. Leave it out."
        )
    place = Path(os.path.realpath(out))
    if os.path.lexists(place) and not (place.is_dir() and not any(place.iterdir())):
        what = "is not empty" if place.is_dir() else "is a file"
        raise InvalidCallError(f"{WHERE}: fix={out} {what}. Give a new folder.")
    own = layout.place if layout.place.is_dir() else layout.place.parent
    sources = [source for listed in layout.splits.values() for source in listed]
    for used in (layout.root, own, *sources):
        used = Path(os.path.realpath(used))
        if place == used or used in place.parents:
            raise InvalidCallError(f"{WHERE}: fix={out} lies inside the data ({used}). Give a folder outside of it.")


def repair(report: DataReport, out: Path) -> Repair:
    """Write a cleaned copy to a folder that :func:`check_target` allows.

    The copy has every object that training reads, in its split, under the name of its class, as often as it is listed. It lacks
    images that cannot be read, and those in which an object would lose its label and become background. Lines that describe
    nothing are dropped, boxes over the edge are clipped, images are saved upright in 8-bit RGB. Training images that another
    split has too are left out, unless training would lose a class or most of its images. :class:`Repair` lists all of it.

    Raises:
        InvalidCallError: A copy would lose something or need a guess, and nothing is written; or it cannot be written, and what
            was written can be removed.
    """
    selection = select(report)
    done = Repair(Path(out), left_out=selection.left_out, unmended=selection.unmended)
    moved = [(old, new) for old, new in selection.classes.items() if old != new]
    done.renumbered += [(old, new, report.names[old]) for old, new in moved]
    try:
        done.folder.mkdir(parents=True, exist_ok=True)
        if report.task == "classify":
            _copy_classes(report, selection, done)
        else:
            _copy_splits(report, selection, done)
        done.write()
    except KeyboardInterrupt:
        shutil.rmtree(done.folder, ignore_errors=True)  # it was not there, or empty
        raise
    except OSError as error:
        raise InvalidCallError(
            f"{WHERE}: the copy in {out} is not finished: {error}. Remove the folder and try again elsewhere."
        ) from error
    return done


def _copy_classes(report: DataReport, selection: Selection, done: Repair) -> None:
    """Copy class folders; one without images stays, for the numbers of the others."""
    names = _Names(done.folder)
    for split, images in selection.images.items():
        source = report.splits[split][0]
        folder = done.folder / ("test" if source.name == "test" else split)
        for name in class_names(source):
            (folder / name).mkdir(parents=True, exist_ok=True)
        for image in images:
            _copy_image(image, names.place(image, folder / str(class_of(image, source))), report, done)
    if (names_file := report.root / NAMES_FILE).is_file():
        shutil.copyfile(names_file, done.folder / NAMES_FILE)


def _copy_splits(report: DataReport, selection: Selection, done: Repair) -> None:
    """Copy images with their labels, and write the description; a split that repeats images becomes a list."""
    form = Format(report.task, tuple(sorted(report.names)), report.keypoints)
    drop = {(f.path, f.line): f.rule.id for f in report.findings if f.rule.id in DROPPED_LINES and f.line}
    labels = LabelCopy(form, selection.classes, drop)
    names = _Names(done.folder)
    content: dict[str, Any] = {}
    for split, images in selection.images.items():
        folder = done.folder / "images" / split
        (done.folder / "labels" / split).mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        lines: list[str] = []
        counts = Counter(map(file_of, images))
        for image in {file_of(image): image for image in reversed(images)}.values():
            target = names.place(image, folder, hidden="_")
            _copy_image(image, target, report, done)
            _copy_array(image, target, report)
            if (text := labels.copied(label_path(image))) is not None:
                Path(label_path(str(target))).write_text(text, encoding="utf-8")
            lines += [f"./images/{split}/{target.name}\n"] * counts[file_of(image)]
        content[split] = f"images/{split}"
        if len(lines) > len(counts):
            content[split] = f"{split}.txt"
            (done.folder / content[split]).write_text("".join(sorted(lines)), encoding="utf-8")
    done.dropped, done.clipped = labels.dropped, labels.clipped
    content["names"] = {new: report.names[old] for old, new in selection.classes.items()}
    content |= {key: value for key, value in report.description.items() if key not in OWN_KEYS}
    if isinstance(by_class := content.get("kpt_names"), dict):
        content["kpt_names"] = {selection.classes.get(old, old): names for old, names in by_class.items()}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
    write_whole(done.folder / "data.yaml", text.encode("utf-8"))


def _copy_image(image: str, target: Path, report: DataReport, done: Repair) -> None:
    rule = report.rules_of.get(image, frozenset()) & REDRAWN
    if rule and report.channels in (1, 3):
        try:
            target.write_bytes(mended(image, target.suffix))
        except BROKEN as error:
            raise OSError(f"{image} cannot be decoded: {error}") from error
        done.redrawn.append((image, min(rule)))
    else:
        shutil.copyfile(image, target)
    done.copied += 1


def _copy_array(image: str, target: Path, report: DataReport) -> None:
    """Copy the readable array that Ultralytics reads in place of an image; its picture may be intended."""
    array = Path(image).with_suffix(".npy")
    wrong = report.rules_of.get(str(array), frozenset()) - {"npy-picture"}
    if not array.is_file() or wrong or array.stat().st_mtime < os.stat(image).st_mtime:
        return
    shutil.copyfile(array, target.with_suffix(".npy"))


class _Names:
    """Gives each copied image a unique name in any case of letters: its own, if it is free."""

    def __init__(self, root: Path) -> None:
        self._used: set[str] = set()
        self._root = root

    def place(self, image: str, folder: Path, hidden: str = ".") -> Path:
        """Return where an image goes; ``hidden`` replaces a dot that begins its name, and that Ultralytics passes over."""
        stem, ending = os.path.splitext(os.path.basename(image))
        stem = "".join(letter if letter.isprintable() else "_" for letter in stem).strip() or "_"
        stem = hidden + stem[1:] if stem[0] == "." else stem
        name, number = stem, 1
        while (key := str(folder / name).lower()) in self._used:
            number += 1
            name = f"{stem}-{number}"
        self._used.add(key)
        return folder / f"{name}{new_ending(image, ending)}"
