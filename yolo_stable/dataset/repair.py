"""A cleaned copy of a data set; the original is only read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ..errors import InvalidCallError
from ..whole_file import write_whole
from .files import label_path
from .finding import Severity
from .folders import class_of
from .layout import WHERE, Layout
from .picture import mended, new_ending
from .report import Report

LEFT_OUT = frozenset(
    {
        *("image-empty", "image-unreadable", "image-truncated", "image-format", "image-small", "link-broken"),
        *("label-encoding", "label-parse", "label-columns", "label-not-finite", "class-fraction", "class-range"),
        *("coordinate-negative", "coordinate-above-one", "polygon-points", "keypoint-outside", "keypoint-visibility"),
        *("augment-failed", "augment-not-finite"),
    }
)
"""Rules whose images are not copied when they are errors: nobody can read them, or an object would become background."""
SUPERFLUOUS = frozenset({"duplicate", "image-constant"})
"""Rules whose images are not copied in any case."""
REDRAWN = frozenset({"image-rotated", "image-cmyk", "image-16bit", "image-float", "image-alpha", "image-trailing"})
"""Rules whose images are saved anew."""
DROPPED_LINES = frozenset({"box-zero-area", "polygon-zero-area", "box-duplicate"})
"""Rules whose lines describe nothing, or nothing new."""
CHANGES = "changes.json"


@dataclass
class Repair:
    """What was done."""

    folder: Path
    copied: int = 0
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Images that were not copied, each with the rule."""
    redrawn: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[tuple[str, int, str]] = field(default_factory=list)
    """Lines of label files that were not copied."""
    clipped: list[tuple[str, int]] = field(default_factory=list)
    """Lines whose coordinates were clipped to the image."""

    @property
    def verdict(self) -> str:
        """One line that says what was done."""
        return (
            f"{self.folder}: {self.copied} images copied, {len(self.left_out)} left out, {len(self.redrawn)} saved anew;"
            f" {len(self.dropped)} lines dropped, {len(self.clipped)} clipped. {CHANGES} there lists them."
        )


def check_target(out: Path, layout: Layout) -> None:
    """Refuse a folder that is in use or lies inside the data.

    Args:
        out: The folder of the copy.
        layout: The data set.

    Raises:
        InvalidCallError: It is a file, is not empty, or lies inside the data set or around it.
    """
    place = Path(os.path.realpath(out))
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        what = "is a file" if place.is_file() else "is not empty"
        raise InvalidCallError(f"{WHERE}: fix={out} {what}. Give a folder that is not there yet.")
    own = layout.place if layout.place.is_dir() else layout.place.parent
    sources = [source for listed in layout.splits.values() for source in listed]
    for used in (layout.root, own, *sources):
        used = Path(os.path.realpath(used))
        if place == used or used in place.parents:
            raise InvalidCallError(f"{WHERE}: fix={out} lies inside the data ({used}). Give a folder outside of it.")


def repair(report: Report, out: Path) -> Repair:
    """Write a cleaned copy.

    Left out are images that cannot be read, copies, and images in which an object would lose its label and so become
    background. Lines that describe nothing are dropped, boxes that reach over the edge are clipped, images are saved upright
    in 8-bit RGB where they were not. Of copies in two splits the one in validation stays.

    Args:
        report: Of the check.
        out: The folder, as allowed by :func:`check_target`.

    Raises:
        InvalidCallError: The copy cannot be written; what is there of it can be removed.
    """
    done = Repair(Path(out))
    why = _images_to_leave(report)
    redraw = {finding.image: finding.rule.id for finding in report.findings if finding.rule.id in REDRAWN}
    drop = {(f.path, f.line): f.rule.id for f in report.findings if f.rule.id in DROPPED_LINES and f.line}
    used: set[str] = set()
    try:
        done.folder.mkdir(parents=True, exist_ok=True)
        for split, images in report.images.items():
            for image in images:
                if rule := why.get((split, image)):
                    done.left_out.append((image, rule))
                    continue
                target = _target(report, split, image, done.folder, used)
                target.parent.mkdir(parents=True, exist_ok=True)
                if image in redraw:
                    target.write_bytes(mended(image, target.suffix))
                    done.redrawn.append((image, redraw[image]))
                else:
                    shutil.copyfile(image, target)
                done.copied += 1
                if report.task != "classify":
                    _copy_labels(label_path(image), label_path(str(target)), report, drop, done)
        _describe(report, done)
    except OSError as error:
        raise InvalidCallError(
            f"{WHERE}: the copy in {out} is not finished: {error}. Remove the folder and try again elsewhere."
        ) from error
    return done


def _images_to_leave(report: Report) -> dict[tuple[str, str], str]:
    """Return the rule by which an image of a split is not copied."""
    why: dict[tuple[str, str], str] = {}
    split_of: dict[str, list[str]] = {}
    for split, images in report.images.items():
        for image in images:
            split_of.setdefault(image, []).append(split)
    for finding in report.findings:
        rule, image = finding.rule.id, finding.image or finding.path
        if rule == "duplicate-across-splits":
            for twin in (path for path in finding.others if "train" in split_of.get(path, ())):
                why.setdefault(("train", twin), rule)
        elif rule in SUPERFLUOUS or (rule in LEFT_OUT and finding.severity is Severity.ERROR):
            for split in split_of.get(image, ()):
                why.setdefault((split, image), rule)
    return why


def _target(report: Report, split: str, image: str, folder: Path, used: set[str]) -> Path:
    """Return where an image goes: its name stays as it is where no other image has it, in any case of letters."""
    stem, ending = os.path.splitext(os.path.basename(image))
    ending = new_ending(image, ending)
    if report.task == "classify":
        source = next(parent for parent in Path(image).parents if parent.name and _is_split(parent, report))
        place = folder / split / (class_of(image, source) or "")
    else:
        place = folder / "images" / split
    name, number = stem, 1
    while (key := str(place / name).lower()) in used:
        number += 1
        name = f"{stem}-{number}"
    used.add(key)
    return place / f"{name}{ending}"


def _is_split(folder: Path, report: Report) -> bool:
    return folder.parent == report.root


def _copy_labels(source: str, target: str, report: Report, drop: dict[tuple[str, int], str], done: Repair) -> None:
    try:
        text = Path(source).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return
    kept = list(_clean_lines(text, source, report, drop, done))
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")


def _clean_lines(
    text: str, source: str, report: Report, drop: dict[tuple[str, int], str], done: Repair
) -> Iterator[str]:
    for number, content in enumerate(text.splitlines(), start=1):
        words = content.split()
        if not words:
            continue
        if rule := drop.get((source, number)):
            done.dropped.append((source, number, rule))
            continue
        clipped = _clip(words, report)
        if clipped != words:
            done.clipped.append((source, number))
        yield " ".join(clipped)


def _clip(words: list[str], report: Report) -> list[str]:
    """Return the words of a line with its box or outline clipped to the image; words that are inside stay as they are."""
    if len(words) > 6 and report.task != "pose":
        return [
            words[0],
            *(word if 0 <= float(word) <= 1 else f"{min(max(float(word), 0), 1):g}" for word in words[1:]),
        ]
    x, y, w, h = map(float, words[1:5])
    sides = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    inside = [min(max(side, 0.0), 1.0) for side in sides]
    if max(abs(a - b) for a, b in zip(sides, inside, strict=True)) < 1e-6:
        return words
    left, top, right, bottom = inside
    box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return [words[0], *(f"{value:.8g}" for value in box), *words[5:]]


def _describe(report: Report, done: Repair) -> None:
    """Write the new ``data.yaml`` and the list of changes."""
    if report.task != "classify":
        content: dict[str, Any] = {split: f"images/{split}" for split in report.images}
        content["names"] = dict(enumerate(name for _, name in sorted(report.names.items())))
        for key in ("kpt_shape", "flip_idx", "kpt_names", "channels"):
            if key in report.description:
                content[key] = report.description[key]
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        write_whole(done.folder / "data.yaml", text.encode("utf-8"))
    changes = {"left_out": done.left_out, "redrawn": done.redrawn, "dropped": done.dropped, "clipped": done.clipped}
    write_whole(done.folder / CHANGES, json.dumps(changes, indent=1).encode("ascii"))
