"""Image files: listed as Ultralytics lists them, and what is wrong with folders, links and names."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .._shared.regular_file import read_file
from .finding import DataFinding, Severity
from .label_file import objects_of
from .rules import found

FORMATS = frozenset(["avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"])
"""Endings that Ultralytics takes for images."""
OTHER_IMAGES = frozenset(["gif", "jfif", "jpe", "ppm", "pgm", "pbm", "exr", "hdr", "tga", "psd", "svg", "jxl"])
"""Endings of images that it silently skips."""
MOST_LIST_BYTES = 1 << 28
"""Of a list of images: four million paths."""
NOT_LABELS = frozenset({"classes", "readme", "notes", "license", "labels", "train", "val", "test", "obj", "data"})
"""Stems of text files beside images that are no labels."""


@dataclass
class Listing:
    """The images of a split."""

    images: list[str] = field(default_factory=list)
    """Sorted, as Ultralytics has them."""
    origins: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Of images from a list: its file and line."""
    findings: list[DataFinding] = field(default_factory=list)


def list_images(sources: Iterable[Path], *, hidden: bool = False) -> Listing:
    """List the images of folders and of lists of paths; classification also takes ``hidden`` names, with a dot."""
    listing = Listing()
    for source in sources:
        if source.is_dir():
            listing.images += _walk(str(source), (os.path.realpath(source),), listing.findings, hidden)
        else:
            _read_list(source, listing)
    listing.images.sort()
    listing.findings += _clashes(listing.images)
    return listing


def _walk(folder: str, above: tuple[str, ...], findings: list[DataFinding], hidden: bool) -> Iterator[str]:
    """Yield the images below a folder, also through links, unless a link leads back."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        findings.append(found("path-missing", folder, f"cannot be read: {error.strerror}"))
        return
    for entry in entries:
        if not hidden and entry.name[0] == ".":
            continue
        ending = entry.name.rpartition(".")[2].lower()
        if entry.is_symlink():
            fault = _link_fault(entry.path, above)
            if fault == "symlink-loop" or (fault and ending in FORMATS):
                findings.append(found(fault, entry.path, f"leads to {os.readlink(entry.path)}"))
                continue
        if entry.is_dir():
            if ending in FORMATS and ending != entry.name.lower() and not hidden:
                message = "is a folder; Ultralytics takes its name for an image and cannot read it"
                findings.append(found("image-unreadable", entry.path, message, severity=Severity.WARNING))
            yield from _walk(entry.path, (*above, os.path.realpath(entry.path)), findings, hidden)
        elif ending in FORMATS and ending != entry.name.lower():
            yield entry.path
        elif ending in OTHER_IMAGES:
            findings.append(
                found("image-ignored", entry.path, f"ends in .{ending}; Ultralytics reads {', '.join(sorted(FORMATS))}")
            )


def _link_fault(path: str, above: tuple[str, ...]) -> str:
    try:
        os.stat(path)
    except OSError as error:
        return "symlink-loop" if error.errno == errno.ELOOP else "link-broken"
    target = os.path.realpath(path)
    around = above[-1].startswith(target.rstrip(os.sep) + os.sep)  # it holds the folder that holds the link
    return "symlink-loop" if os.path.isdir(path) and (around or target in above) else ""


def _read_list(source: Path, listing: Listing) -> None:
    try:
        text = read_file(source, most=MOST_LIST_BYTES, links=True).decode("utf-8-sig", errors="replace")
    except (OSError, ValueError) as error:
        message = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        listing.findings.append(found("path-missing", source, message))
        return
    lines = text.splitlines()
    for line, text in enumerate(lines, start=1):
        path = str(source.parent) + os.sep + text[2:] if text.startswith("./") else text
        if path.rpartition(".")[2].lower() not in FORMATS:
            continue
        if os.path.exists(path):
            listing.images.append(path)
            listing.origins.setdefault(path, (str(source), line))
        else:
            listing.findings.append(found("list-entry-missing", source, f"{path} does not exist", line=line))


def _clashes(images: list[str]) -> Iterator[DataFinding]:
    """Find names that differ only in capital letters, and images that share a label file."""
    lowered: dict[str, str] = {}
    stems: dict[str, str] = {}
    for image in images:
        other = lowered.setdefault(image.lower(), image)
        if other != image:
            yield found(
                "case-clash", image, f"differs from {os.path.basename(other)} only in capital letters", image=image
            )
        stem = image.rpartition(".")[0]
        twin = stems.setdefault(stem, image)
        if twin != image:
            yield found("label-shared", image, f"shares the label file of {os.path.basename(twin)}", image=image)


def file_of(image: str) -> tuple[str, str]:
    """Return the real paths of an image and its labels: equal however the path is written."""
    return os.path.realpath(image), os.path.realpath(label_path(image))


def by_numbers(name: str) -> list[tuple[int, str]]:
    """Return what sorts names by the numbers in them.

    Examples:
        >>> sorted(["10.jpg", "2.jpg"], key=by_numbers)
        ['2.jpg', '10.jpg']
    """
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def label_path(image: str) -> str:
    """Return where Ultralytics looks for an image's labels.

    Examples:
        >>> label_path("/d/images/train/1.jpg").replace(os.sep, "/")
        '/d/labels/train/1.txt'
        >>> label_path("/d/photos/1.jpg")
        '/d/photos/1.txt'
    """
    labels = f"{os.sep}labels{os.sep}".join(image.rsplit(f"{os.sep}images{os.sep}", 1))
    return labels.rsplit(".", 1)[0] + ".txt"


def _beside(images: Iterable[str], folder: str) -> Iterator[DataFinding]:
    """Find labels beside their image, where Ultralytics does not look, and say what they hold."""
    for image in images:
        path = os.path.join(folder, os.path.basename(image).rpartition(".")[0] + ".txt")
        objects, read = objects_of(path), label_path(image)
        if not isinstance(objects, frozenset) or not objects or objects == objects_of(read):
            continue  # a text of another kind, or no loss
        there = os.path.exists(read)
        message = f"lies beside its image and is not read; Ultralytics reads {read}, which " + (
            "says something else" if there else "is missing"
        )
        severity = Severity.WARNING if there else None
        yield found("label-beside", path, message, image=image, severity=severity)


def orphans(images: Iterable[str]) -> Iterator[DataFinding]:
    """Find label files that nobody reads: without an image in the folders of the labels, or beside images."""
    folders: dict[str, str] = {}
    for image in images:
        folders.setdefault(os.path.dirname(label_path(image)), os.path.dirname(image))
    for labels, pictures in sorted(folders.items()):
        if not os.path.isdir(pictures):
            continue
        listed = set(os.listdir(pictures))
        files = {name.rpartition(".")[0]: name for name in listed if name.rpartition(".")[2].lower() in FORMATS}
        stems = set(files)
        if labels != pictures:
            beside = (stem for stem in sorted(stems) if f"{stem}.txt" in listed)
            yield from _beside((os.path.join(pictures, files[stem]) for stem in beside), pictures)
        if not os.path.isdir(labels):
            continue
        for name in sorted(os.listdir(labels)):
            stem, _, ending = name.rpartition(".")
            path = os.path.join(labels, name)
            if ending == "txt" and stem not in stems and stem.lower() not in NOT_LABELS:
                yield found("label-orphan", path, f"the image {stem} is missing in {pictures}")
            elif (
                ending != "txt" and ending.lower() == "txt" and stem in stems and not os.path.exists(f"{path[:-3]}txt")
            ):
                message = f"is not read; Ultralytics reads {stem}.txt, which is missing"
                yield found("label-orphan", path, message, image=os.path.join(pictures, files[stem]))


def elsewhere(images: Iterable[str]) -> Iterator[DataFinding]:
    """Find label files with the name of an image that has none, in folders of the same tree where they are not read."""
    missing: dict[str, list[str]] = {}
    roots: set[str] = set()
    for image in dict.fromkeys(images):
        read = label_path(image)
        before, inside, _ = read.rpartition(f"{os.sep}labels{os.sep}")
        roots |= {before + inside} if inside else set()
        if not os.path.exists(read):
            missing.setdefault(os.path.basename(image).rpartition(".")[0], []).append(image)
    for root in sorted(roots) if missing else ():
        for folder, _, names in os.walk(root):
            for stem in sorted(name[:-4] for name in names if name.endswith(".txt") and name[:-4] in missing):
                path = os.path.join(folder, f"{stem}.txt")
                if len(missing[stem]) == 1 and not _has_image(path):
                    image = missing[stem][0]
                    message = f"has the name of {image}, which lacks labels; Ultralytics reads {label_path(image)}"
                    yield found("label-elsewhere", path, message, image=image)


def _has_image(label: str) -> bool:
    """Say whether a label file belongs to some image, listed or not."""
    before, _, after = label.rpartition(f"{os.sep}labels{os.sep}")
    start = f"{before}{os.sep}images{os.sep}{after[:-4]}"
    return any(os.path.exists(f"{start}.{ending}") for ending in FORMATS)
