"""Objects: the labels of all images as one table, for rules that no single file can break."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from .boxes import usable
from .label_file import Rows, corners


@dataclass(slots=True)
class Objects:
    """Labels of a split: 28 bytes for each object, and the paths of images with objects."""

    images: list[str] = field(default_factory=list)
    """Those with an object."""
    files: list[str] = field(default_factory=list)
    """The label file of each of them."""
    _tables: list[np.ndarray] = field(default_factory=list)
    _owners: list[np.ndarray] = field(default_factory=list)
    _lines: list[np.ndarray] = field(default_factory=list)

    def take(self, rows: Rows) -> None:
        """Take over the rows of a chunk of files, without boxes that the loader refuses."""
        if not rows.boxes:
            return
        table = np.array(rows.boxes, dtype=np.float32)
        good = usable(table)
        owners, places = np.unique(np.array(rows.owners, dtype=np.int32)[good], return_inverse=True)
        self._tables.append(table[good])
        self._owners.append(places.astype(np.int32) + len(self.images))
        self._lines.append(np.array(rows.lines, dtype=np.int32)[good])
        self.images += [rows.images[owner] for owner in owners]
        self.files += [rows.files[owner] for owner in owners]

    def add(self, part: Objects) -> None:
        """Take over the objects of another part of the split."""
        self._tables += part._tables
        self._owners += [owners + len(self.images) for owners in part._owners]
        self._lines += part._lines
        self.images += part.images
        self.files += part.files

    @property
    def table(self) -> np.ndarray:
        """Class, centre, width and height in fractions of the image: ``(N, 5)`` float32."""
        return np.concatenate([np.zeros((0, 5), np.float32), *self._tables])

    @property
    def owners(self) -> np.ndarray:
        """The image of each object, a place in :attr:`images`: ``(N,)`` int32, ascending."""
        return np.concatenate([np.zeros(0, np.int32), *self._owners])

    @property
    def lines(self) -> np.ndarray:
        """The line of each object in its label file: ``(N,)`` int32."""
        return np.concatenate([np.zeros(0, np.int32), *self._lines])

    def each(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield, for each image with objects, its place and its rows of :attr:`table`."""
        table, owners = self.table, self.owners
        starts = np.searchsorted(owners, np.arange(len(self.images) + 1))
        for image, (begin, end) in enumerate(pairwise(starts)):
            yield image, table[begin:end]


def outline(row: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Return the corners of a row of :attr:`Objects.table`."""
    return corners(*map(float, row[1:]))
