"""Same labels: label files with the same bytes, of images that are not the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from .._shared.regular_file import read_file
from .._shared.text import listed
from .finding import DataFinding, Severity
from .label_file import MOST_BYTES
from .near import CROWD
from .objects import Objects
from .rules import found
from .scan import Scan

_ROUND = 100
"""Whole hundredths were typed or come from a grid, and may be equal by chance."""


def check_same_labels(scans: Mapping[str, Scan], known: Iterable[DataFinding], limit: float) -> Iterator[DataFinding]:
    """Find images that have the labels of another one.

    Args:
        scans: By split.
        known: Copies that were found, exact or near, whose labels should be equal.
        limit: Coordinates that are not round, from which on equal labels are no chance.

    Yields:
        A finding for each file but the first; one for a whole crowd, whose objects may always lie in the same place.
    """
    copy_of: dict[str, str] = {}
    for finding in known:
        if len(finding.others) > 1:
            first = copy_of.setdefault(finding.others[0], finding.others[0])
            copy_of.update((other, first) for other in finding.others[1:])
    groups: dict[bytes, list[tuple[Objects, int]]] = {}
    for scan in scans.values():
        for image, rows in scan.taken.each():
            scaled = rows[:, 1:].astype(np.float64) * _ROUND
            if (np.abs(scaled - np.rint(scaled)) > 1e-4).sum() >= limit:
                groups.setdefault(rows.tobytes(), []).append((scan.taken, image))
    for group in groups.values():
        if len(group) < 2:
            continue
        files: dict[bytes, dict[str, str]] = {}
        for objects, image in group:
            path = objects.images[image]
            files.setdefault(_content(objects.files[image]), {}).setdefault(copy_of.get(path, path), path)
        for content, images in files.items():
            if content and len(images) > 1:
                yield from _told(list(images.values()), {objects.images[i]: objects.files[i] for objects, i in group})


def _told(images: list[str], file_of: Mapping[str, str]) -> Iterator[DataFinding]:
    first, *others = images
    if len(images) >= CROWD:
        message = f"{len(images)} images have labels of the same bytes, among them {listed(others)}"
        yield found("label-same", file_of[first], message, image=first, severity=Severity.INFO)
        return
    for image in others:
        if file_of[image] != file_of[first]:  # of one file that two images share another rule tells
            message = f"has the same bytes as {file_of[first]}; the images are not the same"
            yield found("label-same", file_of[image], message, image=image)


def _content(path: str) -> bytes:
    try:
        return read_file(path, most=MOST_BYTES, links=True)
    except (OSError, ValueError):
        return b""
