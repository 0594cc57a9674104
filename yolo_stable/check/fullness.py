"""Fullness: images with far more objects than the others, and splits that are mostly background."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .finding import DataFinding, Severity
from .layout import Layout
from .rules import found
from .scan import Scan

MOST_DETECTED = 300
"""Ultralytics' ``max_det``: objects that a model may find in an image."""
_USUAL = 5
"""Times the mean number of objects that make a crowd."""


def check_fullness(layout: Layout, scans: Mapping[str, Scan], limits: Mapping[str, float]) -> Iterator[DataFinding]:
    """Judge how many objects images have, by the limits of ``image-crowded`` and ``background-share``."""
    counts = {split: np.bincount(scan.taken.owners, minlength=1) for split, scan in scans.items()}
    filled = sum(len(scan.taken.images) for scan in scans.values())
    mean = sum(int(count.sum()) for count in counts.values()) / max(filled, 1)
    most = limits["image-crowded"]
    for split, scan in scans.items():
        for image in np.flatnonzero(counts[split] > most):
            count, path = int(counts[split][image]), scan.taken.images[image]
            if count <= MOST_DETECTED and count < _USUAL * mean:
                continue  # all images are like that
            beyond = count > MOST_DETECTED
            message = f"has {count} objects; the mean is {mean:.0f}, the limit {most:g}"
            if beyond:
                message += f". A model finds {MOST_DETECTED} at most (max_det)"
            severity = Severity.WARNING if beyond else None
            yield found("image-crowded", path, message, image=path, severity=severity)
        images, with_objects = len(scan.images), len(scan.taken.images)
        share = 1 - with_objects / max(images, 1)
        if scan.labelled and with_objects and share > limits["background-share"]:
            message = (
                f"{split}: {images - with_objects} of {images} images have no object ({share:.0%}); expected are"
                f" {limits['background-share']:.0%} at most"
            )
            yield found("background-share", layout.place, message, line=layout.lines.get(split))
