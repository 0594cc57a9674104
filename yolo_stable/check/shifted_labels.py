"""Shifted labels: the labels of each image lie on the image before or after it, through a whole split.

Boxes are laid over the small grey copies. Where labels are right, what stands out in an image lies inside its own boxes more than
inside those of other images; how much more is counted in standard deviations of all ways to deal the labels out. A split is told
when its labels fit their own images by chance only, and the images one place further far better. Nothing is said where objects
do not stand out, or where neighbours look alike as in a video.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .files import by_numbers
from .finding import DataFinding
from .layout import Layout
from .pixels import SIDE
from .rules import found
from .scan import Scan

LEAST_IMAGES = 30
"""Images with objects: in fewer, chance may do what a shift does."""
MOST_IMAGES = 500
"""Images of a split that are looked at, the first ones."""
CHANCE = 3.0
"""Standard deviations up to which labels fit their own images no better than dealt-out ones."""
SURE = 8.0
"""Standard deviations from which on labels fit the images one place further."""


def check_shifted_labels(layout: Layout, scans: Mapping[str, Scan]) -> Iterator[DataFinding]:
    """Report splits whose labels are one image off; images that were not decoded say nothing."""
    for split, scan in scans.items():
        if len(scan.small) != len(scan.images) * SIDE * SIDE or len(scan.taken.images) < LEAST_IMAGES:
            continue
        places = {path: place for place, path in enumerate(scan.images)}  # an image that is listed again counts once
        masks = dict(_masks(scan))
        for order in (sorted(places), sorted(places, key=by_numbers)):
            order = order[:MOST_IMAGES]
            small = np.frombuffer(scan.small, np.uint8).reshape(-1, SIDE, SIDE)[[places[path] for path in order]]
            empty = np.zeros((SIDE, SIDE), np.float32)
            inside = np.stack([masks.get(path, empty) for path in order])
            fits = [_fit(outstanding, inside) for outstanding in _outstanding(small)]
            own = max(abs(fit[0]) for fit in fits)
            step, best = max(((step, abs(fit[step])) for fit in fits for step in (1, -1)), key=lambda pair: pair[1])
            if own <= CHANCE and best >= SURE:
                message = (
                    f"{split}: the labels lie one image off. They fit the image {'before' if step < 0 else 'after'} theirs"
                    f" ({best:.0f} standard deviations above chance; {SURE:g} or more are sure), not their own"
                    f" ({own:.1f}; {CHANCE:g} or less are chance)"
                )
                yield found("label-shifted", layout.place, message, line=layout.lines.get(split))
                break


def _masks(scan: Scan) -> Iterator[tuple[str, np.ndarray]]:
    """Yield, for each image with objects, the share of each cell that lies in a box: ``(SIDE, SIDE)``, at most 1."""
    cells = np.arange(SIDE)
    for image, rows in scan.taken.each():
        x, y, w, h = rows[:, 1:].T[..., None] * SIDE
        across = (np.minimum(cells + 1, x + w / 2) - np.maximum(cells, x - w / 2)).clip(0, 1)
        down = (np.minimum(cells + 1, y + h / 2) - np.maximum(cells, y - h / 2)).clip(0, 1)
        yield scan.taken.images[image], np.minimum(np.einsum("ni,nj->ij", down, across), 1).astype(np.float32)


def _outstanding(small: np.ndarray) -> Iterator[np.ndarray]:
    """Yield what may stand out in images: light, what differs from most of the image, edges."""
    grey = small.astype(np.float32)
    yield grey
    yield np.abs(grey - np.median(grey, axis=(1, 2), keepdims=True))
    down, right = np.gradient(grey, axis=(1, 2))
    yield np.hypot(down, right)


def _fit(outstanding: np.ndarray, inside: np.ndarray) -> dict[int, float]:
    """Return how well labels fit images 0, 1 and -1 places further, in standard deviations of all ways to deal them out."""
    flat = [part.reshape(len(part), -1) - part.mean((1, 2))[:, None] for part in (outstanding, inside)]
    images, labels = (part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-6) for part in flat)
    table = labels @ images.T
    table -= table.mean(0) + table.mean(1)[:, None] - table.mean()
    spread = max(float(np.sqrt((table**2).sum() / (len(table) - 1))), 1e-9)
    return {step: float(np.trace(np.roll(table, -step, axis=1))) / spread for step in (0, 1, -1)}
