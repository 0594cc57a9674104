"""Sizes: objects that are far larger or smaller than the others of their class, as objects of another class are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .finding import DataFinding
from .objects import outline
from .rules import found
from .scan import Scan

LEAST = 20
"""Objects of a class that tell its usual sizes."""
RARE = 0.05
"""Most objects of a class, as a share, that are out of line; more are usual sizes of it."""
_NARROW = 0.15
"""Least spread of a class in octaves."""
_FACTOR = 1.0
"""Octaves by which an object must differ: half or twice the usual side."""


def check_sizes(scans: Mapping[str, Scan], names: Mapping[int, str], limit: float) -> Iterator[DataFinding]:
    """Find objects that are far smaller or larger than those of their class: ``limit`` robust standard deviations.

    Sizes are square roots of areas as shares of the image, in octaves. The median is usual, and the median of the distances
    to it is the spread: a few wrong labels move neither.
    """
    taken = [scan.taken for scan in scans.values()]
    tables = [objects.table for objects in taken]
    whole = np.concatenate([np.zeros((0, 5), np.float32), *tables])
    octaves = np.log2(np.maximum(whole[:, 3] * whole[:, 4], 1e-12)) / 2
    usual = {c: float(np.median(octaves[whole[:, 0] == c])) for c in names if (whole[:, 0] == c).sum() >= LEAST}
    strange = np.zeros(len(whole), bool)
    for number, middle in usual.items():
        mine = whole[:, 0] == number
        distance = np.abs(octaves - middle)
        spread = max(1.4826 * float(np.median(distance[mine])), _NARROW)
        far = mine & (distance > limit * spread) & (distance > _FACTOR)
        if far.sum() <= RARE * mine.sum():
            strange |= far
    start = 0
    for objects, table in zip(taken, tables, strict=True):
        owners, lines = objects.owners, objects.lines
        for row in np.flatnonzero(strange[start : start + len(table)]):
            number, side = int(table[row, 0]), octaves[start + row]
            nearest = min(usual, key=lambda other, side=side: abs(usual[other] - side))
            like = f", as {names[nearest]} has" if nearest != number else ""
            message = (
                f"{names[number]} with {2**side:.2g} of the image's side{like}; usual is {2 ** usual[number]:.2g}, and"
                f" the limit is {limit:g} deviations"
            )
            image = objects.images[owners[row]]
            where = {"line": int(lines[row]), "image": image, "points": outline(table[row])}
            yield found("class-size", objects.files[owners[row]], message, **where)
        start += len(table)
