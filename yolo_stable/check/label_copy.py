"""Label copy: the lines of a label file in the cleaned copy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .._shared.regular_file import read_file
from .boxes import ROUNDING
from .label_file import MOST_BYTES, Format, shape_of


@dataclass
class LabelCopy:
    """Copies label files and records what it changed."""

    form: Format
    classes: Mapping[int, int]
    """Ids in the copy by those in the labels."""
    drop: Mapping[tuple[str, int], str]
    """Rules of the lines to drop, by file and line."""
    dropped: list[tuple[str, int, str]] = field(default_factory=list)
    clipped: list[tuple[str, int]] = field(default_factory=list)

    def copied(self, source: str) -> str | None:
        """Return what the copy of a label file holds; None when there is no such file.

        Raises:
            OSError: It cannot be read.
        """
        if not os.path.isfile(source):
            return None
        content = read_file(source, most=MOST_BYTES, links=True)
        return "".join(f"{line}\n" for line in self._lines(source, content.decode("utf-8-sig")))

    def _lines(self, source: str, text: str) -> Iterator[str]:
        for number, content in enumerate(text.splitlines(), start=1):
            words = content.split()
            if not words:
                continue
            if rule := self.drop.get((source, number)):
                self.dropped.append((source, number, rule))
                continue
            clipped = self._clip(words)
            if clipped != words:
                self.clipped.append((source, number))
            old = int(float(words[0]))
            if self.classes[old] != old:
                clipped = [str(self.classes[old]), *clipped[1:]]
            yield " ".join(clipped)

    def _clip(self, words: list[str]) -> list[str]:
        """Return the words of a line with its box or outline clipped to the image; words inside stay as they are.

        The corners of a rotated box stay too: clipped, they would be another rectangle's.
        """
        if shape_of(len(words), self.form) == "box":
            return _clip_box(words)
        if self.form.task == "obb":
            return words
        return [
            words[0],
            *(word if 0 <= float(word) <= 1 else f"{min(max(float(word), 0), 1):g}" for word in words[1:]),
        ]


def _clip_box(words: list[str]) -> list[str]:
    x, y, w, h = map(float, words[1:5])
    sides = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    left, top, right, bottom = inside = [min(max(side, 0.0), 1.0) for side in sides]
    near = max(abs(a - b) for a, b in zip(sides, inside, strict=True)) < ROUNDING
    if near or right <= left or bottom <= top:
        return words
    box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return [words[0], *(f"{value:.8g}" for value in box), *words[5:]]
