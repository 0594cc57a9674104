"""Data check: from the description of a data set to what augmentation makes of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .._shared.regular_file import read_file
from .._shared.text import listed
from ..errors import InvalidCallError
from .balance import check_balance
from .box_format import check_box_format
from .duplicates import exact_duplicates
from .exposure import check_exposure
from .files import FORMATS, elsewhere, file_of, label_path, list_images, orphans
from .finding import DataFinding, Severity
from .folders import class_of, is_tools
from .fullness import check_fullness
from .label_file import MOST_BYTES, Format, guess_task, objects_of
from .layout import MAPS, SPLITS, WHERE, Layout
from .limits import limits_with
from .near import find_near, near_duplicates
from .near_labels import check_near_labels
from .place import read_layout
from .pose_form import keypoint_shape
from .report import DataReport
from .rules import found
from .same_labels import check_same_labels
from .scan import Job, Scan, scan, workers_here
from .shifted_labels import check_shifted_labels
from .sizes import check_sizes

_GUESSED_FROM = 200
"""Label files that are read to tell the task."""


def check(
    data: str | os.PathLike[str],
    *,
    task: str | None = None,
    split: str | Sequence[str] | None = None,
    near: bool = True,
    sample: int = 0,
    limits: Mapping[str, float] | None = None,
    imgsz: int = 640,
    workers: int | None = None,
    progress: bool = False,
) -> DataReport:
    """Check a data set: description, folders, images, labels, duplicates, balance, and what augmentation makes of it.

    Nothing is written. A few dozen images are open at a time; 300 bytes of each image and 28 of each object are kept.

    Args:
        data: Path of a ``data.yaml`` or, for classification, of the folder with ``train`` and ``val``; or a built-in data set.
        task: ``detect``, ``segment``, ``semantic``, ``depth``, ``pose``, ``obb`` or ``classify``; None: told by the data. Of
            ``semantic`` with masks, and of ``depth``, only the images are checked.
        split: One or more of ``train``, ``val`` and ``test``; None: all that exist.
        near: Decode every image and look for near duplicates. Without it, several times faster, only images with suspicious
            headers are decoded: damage inside a picture, or a picture nearly of one colour, can be missed.
        sample: Images to draw through the conservative augmentation, which imports PyTorch and Ultralytics (1 GB); 0: none.
        limits: Numbers from which rules speak, in place of those in :data:`yolo_stable.check.limits.LIMITS`.
        imgsz: Longest side in pixels to which training scales images; boxes below one pixel are reported.
        workers: Threads; None: one for each core.
        progress: Show a bar on stderr.

    Raises:
        InvalidCallError: There is no such data set, or a value is not allowed.
    """
    only = splits_wanted(split)
    for name, value, least in (("workers", workers, 1), ("sample", sample, 0), ("imgsz", imgsz, 32)):
        if value is not None and value < least:
            raise InvalidCallError(f"{WHERE}: {name}={value} is not allowed. It must be {least} or more.")
    limit = limits_with(limits or {})
    layout = read_layout(str(data), task, only)
    findings = list(layout.findings)
    if layout.task == "semantic" and layout.told_by_folders != "semantic":
        layout.task = "segment"  # masks that Ultralytics draws from polygons
    layout.task = layout.task or layout.told_by_folders
    images = _list(layout, findings)
    if layout.task is None:
        layout.task = _guess_task(layout, images, findings)
    job = Job(_form(layout), layout.channels, imgsz, near, limit)
    scans = _scan(images, job, workers or workers_here(), progress)
    for part in scans.values():
        findings += part.findings
    counts = _count(layout, scans)
    findings += check_balance(layout, counts, limit)
    if job.form:
        findings += _labels_at_all(layout, scans, findings)
    findings += _unseen_keypoints(layout, scans)
    findings += check_fullness(layout, scans, limit)
    findings += check_exposure(layout, scans, limit)
    findings += check_box_format(layout, scans)
    findings += check_shifted_labels(layout, scans)
    same = layout.splits.get("train") == layout.splits.get("val") and bool(layout.splits.get("train"))
    if same:
        findings.append(
            found("split-same", layout.place, "train and val are the same images", line=layout.lines.get("val"))
        )
        scans.pop("val", None)
    findings += _listed_again(layout, images)
    copies = list(exact_duplicates(scans, _identity(layout), _labels(layout)))
    if near:
        links = find_near(scans, copies, _identity(layout), limit["near-duplicate"])
        copies += near_duplicates(links, scans, limit["near-duplicate"])
        findings += check_near_labels(layout, links, scans)
    findings += copies
    findings += check_same_labels(scans, copies, limit["label-same"])
    findings += check_sizes(scans, layout.names, limit["class-size"])
    if sample and (job.form or layout.task == "classify"):
        from .sample import check_sample

        findings += check_sample(layout, images, findings, sample)
    beside = {finding.image for finding in findings if finding.rule.id == "label-beside"}
    findings = [f for f in findings if f.rule.id != "label-missing" or f.image not in beside]
    findings = sorted(dict.fromkeys(findings), key=lambda finding: finding.order)  # a file listed twice is told once
    return DataReport(
        place=layout.place,
        root=layout.root,
        task=layout.task,
        images=images,
        splits=layout.splits,
        names=layout.names,
        findings=findings,
        keypoints=layout.keypoints,
        channels=layout.channels,
        description=layout.description,
    )


def splits_wanted(split: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the splits that are asked for.

    Raises:
        InvalidCallError: There is no such split.
    """
    wanted = SPLITS if split is None else (split,) if isinstance(split, str) else tuple(split)
    for name in wanted:
        if name not in SPLITS:
            raise InvalidCallError(f"{WHERE}: split={name} is not among {', '.join(SPLITS)}.")
    return wanted


def _list(layout: Layout, findings: list[DataFinding]) -> dict[str, list[str]]:
    """List the images of all splits, and report what is wrong with the folders."""
    images: dict[str, list[str]] = {}
    classify = layout.task == "classify"
    for split, sources in layout.splits.items():
        listing = list_images(sources, hidden=classify)
        findings += listing.findings
        images[split] = listing.images
        if classify:
            listing.images[:] = _in_classes(layout, split, listing.images, findings)
        if sources and not listing.images:
            where = ", ".join(map(str, sources))
            message = f"{split}: no image in {where}; Ultralytics reads {', '.join(sorted(FORMATS))}"
            severity = Severity.WARNING if split == "test" else None
            findings.append(
                found("split-empty", layout.place, message, line=layout.lines.get(split), severity=severity)
            )
    if not classify and layout.task not in MAPS:
        findings += orphans(image for paths in images.values() for image in paths)
        findings += elsewhere(image for paths in images.values() for image in paths)
    return images


def _in_classes(layout: Layout, split: str, images: list[str], findings: list[DataFinding]) -> list[str]:
    """Return the images in class folders, and report the others and empty folders."""
    source = layout.splits[split][0]
    inside: dict[str, int] = dict.fromkeys(layout.names.values(), 0)
    kept: list[str] = []
    for image in images:
        name = class_of(image, source)
        if name is None:
            findings.append(
                found("image-stray", image, f"lies in {source} itself; expected: a class folder", image=image)
            )
        else:
            inside[name] = inside.get(name, 0) + 1
            kept.append(image)
    for name, count in inside.items():
        if not count and (source / name).is_dir() and not is_tools(name):
            findings.append(found("class-folder-empty", source / name, "holds no image; expected: one or more"))
    return kept


def _guess_task(layout: Layout, images: dict[str, list[str]], findings: list[DataFinding]) -> str:
    """Return the task that the first label files are for; poses without ``kpt_shape`` are reported."""
    texts: list[str] = []
    for image in islice((image for paths in images.values() for image in paths), _GUESSED_FROM):
        with suppress(OSError, ValueError):  # its finding comes with the scan
            content = read_file(label_path(image), most=MOST_BYTES, links=True)
            texts.append(content.decode("utf-8", errors="replace"))
    task = guess_task(texts)
    if task != "detect" and (shape := keypoint_shape(texts)):
        task = "pose"
        if not any(finding.rule.id == "kpt-shape" for finding in findings):
            has = "x, y and visibility" if shape[1] == 3 else "x and y"
            message = f"kpt_shape is missing, and each label row is a box around {shape[0]} points of {has}"
            message += f"; write kpt_shape: [{shape[0]}, {shape[1]}]"
            findings.append(found("kpt-shape", layout.place, message))
    return task


def _form(layout: Layout) -> Format | None:
    """Return what label rows have to hold; None where they are not judged: folders, masks, keypoints of unknown shape."""
    if layout.task in (None, "classify", *MAPS) or (layout.task == "pose" and not layout.keypoints[0]):
        return None
    return Format(layout.task, tuple(sorted(layout.names)), layout.keypoints)


def _scan(images: dict[str, list[str]], job: Job, workers: int, progress: bool) -> dict[str, Scan]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar: Any = Progress(*columns, console=Console(stderr=True), transient=True) if progress else nullcontext()
    with bar:
        scans: dict[str, Scan] = {}
        for split, paths in images.items():
            item = bar.add_task(split, total=len(paths)) if progress else None
            advance = (lambda done, item=item: bar.advance(item, done)) if progress else (lambda done: None)
            scans[split] = scan(paths, job, workers, advance)
        return scans


def _count(layout: Layout, scans: dict[str, Scan]) -> dict[str, np.ndarray]:
    """Return the objects of each class by split; for classification, the images."""
    if layout.task != "classify":
        return {split: part.counts for split, part in scans.items() if len(part.counts)}
    ids = {name: index for index, name in layout.names.items()}
    counts: dict[str, np.ndarray] = {}
    for split, part in scans.items():
        source = layout.splits[split][0]
        classes = [ids[name] for image in part.images if (name := class_of(image, source)) in ids]
        counts[split] = np.bincount(np.array(classes, dtype=np.int64), minlength=len(ids))
    return counts


def _unseen_keypoints(layout: Layout, scans: dict[str, Scan]) -> Iterator[DataFinding]:
    """Report, once for a split, keypoints that no object shows."""
    for split, part in scans.items():
        unseen = np.flatnonzero(part.seen == 0)
        if not part.objects or not len(unseen):
            continue
        every = len(unseen) == len(part.seen)
        what = "no keypoint" if every else f"keypoint {listed(unseen)}"
        message = (
            f"{split}: {what} is visible in any of {part.objects} objects"
            if every
            else (f"{split}: {what} is visible in none of {part.objects} objects")
        )
        severity = None if every else Severity.INFO
        yield found("keypoint-unseen", layout.place, message, line=layout.lines.get(split), severity=severity)


def _identity(layout: Layout) -> Callable[[str], object]:
    """Return what tells files apart; a link in a class folder is an image of its own, as its class may be another."""
    return str if layout.task == "classify" else file_of


def _labels(layout: Layout) -> Callable[[str, str], object]:
    """Return what gives the labels of an image, by its path and split."""
    if layout.task == "classify":
        return lambda image, split: class_of(image, layout.splits[split][0])
    if layout.task in MAPS:
        return lambda image, split: ()
    return lambda image, split: objects_of(label_path(image))


def _listed_again(layout: Layout, images: dict[str, list[str]]) -> Iterator[DataFinding]:
    """Report splits that list images more than once."""
    identity = _identity(layout)
    for split, paths in images.items():
        if len(set(paths)) == len(paths) and not layout.listed(split):
            continue  # nothing to ask the file system
        again = {image: count for image, count in Counter(map(identity, paths)).items() if count > 1}
        if again:
            message = f"{split}: {len(again)} images are listed more than once, up to {max(again.values())} times"
            yield found("listed-again", layout.place, message, line=layout.lines.get(split))


def _labels_at_all(layout: Layout, scans: dict[str, Scan], findings: list[DataFinding]) -> list[DataFinding]:
    """Report splits without a single label, and take back the finding of each of their images."""
    told: list[DataFinding] = []
    for split, part in scans.items():
        if part.labelled or not part.images:
            continue
        told.append(
            found(
                "split-unlabelled",
                layout.place,
                f"{split}: none of {len(part.images)} images has a label; looked for {label_path(part.images[0])}"
                " and its like",
                line=layout.lines.get(split),
                severity=None if split == "train" else Severity.WARNING,
            )
        )
        mine = set(part.images)
        findings[:] = [f for f in findings if not (f.rule.id == "label-missing" and f.path in mine)]
    return told
