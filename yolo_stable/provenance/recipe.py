"""Provenance of one training image: its files, where they lie in it, and the label row behind each box."""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ..errors import InvalidCallError
from .geometry import HOWS, NOTHING, Polygon, Recipe, holds, pieces

Codes = bytes | Callable[[], bytes] | None
ROW_BITS = 24
"""A label row is kept as one number: the serial of its file's use, and in the lower bits the row."""
SCHEMA = 1


class _Size(Protocol):
    @property
    def shape(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Source:
    """One file's part in one training image."""

    path: str
    """The image file; empty when it is not known."""
    index: int
    """Its index in the data set (of several that are joined: in all of them together)."""
    region: Polygon | None
    """Corners (x, y) in pixels of the training image, where the pixel in the upper left corner covers 0 to 1; cut off at
    its edges. None: unknown, as an augmentation moved it in a way that is not followed. Empty: nowhere to be seen."""
    how: str
    """How it came in: ``image`` (the sample itself), ``mosaic``, ``mixup``, ``cutmix``, ``copy_paste``, or ``unknown``."""
    rows: tuple[int, ...] = ()
    """The rows of its label list that have a box in the training image."""


class Provenance:
    """The files of one training image.

    Every image of every batch gets one, and hardly any is looked at: made from a recipe (``geometry.py``), it is worked out when
    somebody asks.

    Args:
        sources: In the order of painting: a later one lies on top, except that ``mixup`` blends. A file can be there more than
            once.
        rows: For each box, in the order of the batch: the position in ``sources``, and the row in that file's label list as
            Ultralytics read it (``dataset.labels[index]``), from 0. None where unknown.
        size: Height and width of the training image in pixels.

    Examples:
        >>> recipe = ("mirror", ("image", 7, 3, "a.jpg", 40, 20), 0, 40)
        >>> origin = Provenance.of(recipe, codes=array("q", [7 << ROW_BITS | 2]).tobytes(), boxes=1, size=(20, 40))
        >>> origin.files(), origin.rows, origin.tile(0)
        (('a.jpg',), ((0, 2),), [0.0, 0.0, 40.0, 20.0])
    """

    __slots__ = ("_boxes", "_codes", "_recipe", "_rows", "_sources", "size")

    size: tuple[int, int]

    def __init__(
        self,
        sources: Iterable[Source] = (),
        rows: Iterable[tuple[int, int] | None] = (),
        size: tuple[int, int] = (0, 0),
    ) -> None:
        self._recipe: Recipe | None = None
        self._sources = tuple(sources)
        self._rows = tuple(rows)
        self._codes: Codes = None
        self._boxes = len(self._rows)
        self.size = size

    @classmethod
    def of(cls, recipe: Recipe, codes: Codes, boxes: int, size: tuple[int, int]) -> Provenance:
        """Make one from what was noted while the image was made.

        Args:
            recipe: See ``geometry.py``.
            codes: For each box, an int64: the serial of a file's use, shifted by :data:`ROW_BITS`, and the row; negative where
                unknown. Or a call that gives them. None: no row is known.
            boxes: Number of boxes.
            size: Height and width in pixels.
        """
        made = cls.__new__(cls)
        made._recipe = recipe
        made._codes = codes
        made._boxes = boxes
        made.size = size
        return made

    @property
    def sources(self) -> tuple[Source, ...]:
        """The files, in the order of painting."""
        self._work_out()
        return self._sources

    @property
    def rows(self) -> tuple[tuple[int, int] | None, ...]:
        """For each box: the position in ``sources`` and the label row, or None."""
        self._work_out()
        return self._rows

    def files(self) -> tuple[str, ...]:
        """Return the paths of all files, each once, that of the sample itself first."""
        return tuple(dict.fromkeys(source.path for source in self.sources if source.path))

    def at(self, x: float, y: float) -> tuple[Source, ...]:
        """Return the sources whose region holds the pixel in column ``x`` and row ``y``, from 0; the topmost last."""
        return tuple(source for source in self.sources if source.region and holds(source.region, x + 0.5, y + 0.5))

    def tile(self, n: int) -> list[float] | None:
        """Return the bounding box ``[x1, y1, x2, y2]`` of the n-th source in pixels; None when its region is unknown or empty."""
        region = self.sources[n].region
        if not region:
            return None
        xs, ys = zip(*region, strict=True)
        return [min(xs), min(ys), max(xs), max(ys)]

    def to_json(self) -> str:
        """Return everything as strict JSON that :meth:`from_json` reads back."""
        sources = [
            {"path": s.path, "index": s.index, "region": s.region, "how": s.how, "rows": s.rows} for s in self.sources
        ]
        whole = {"schema": SCHEMA, "size": self.size, "sources": sources, "rows": self.rows}
        return json.dumps(whole, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Provenance:
        """Read what :meth:`to_json` wrote.

        Raises:
            InvalidCallError: It is something else.

        Examples:
            >>> Provenance.from_json('{"schema": 1, "size": [4, 4], "sources": [], "rows": [[0, 1]]}')
            Traceback (most recent call last):
            yolo_stable.errors.InvalidCallError: Not a provenance: rows[0] is [0, 1], and there are 0 sources.
        """
        try:
            whole = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _refused(f"no JSON ({type(error).__name__})") from error
        _Reader.keys("it", whole, {"schema", "size", "sources", "rows"})
        if type(whole["schema"]) is not int or whole["schema"] != SCHEMA:
            raise _refused(f"its schema is {_short(whole['schema'])}, and this version of yolo-stable reads {SCHEMA}")
        size = _Reader.numbers("size", whole["size"], 2)
        sources = [
            _Reader.source(f"sources[{n}]", s) for n, s in enumerate(_Reader.a_list("sources", whole["sources"]))
        ]
        rows = [_Reader.row(f"rows[{n}]", r, len(sources)) for n, r in enumerate(_Reader.a_list("rows", whole["rows"]))]
        return cls(sources, rows, (size[0], size[1]))

    def _work_out(self) -> None:
        if self._recipe is None:
            return
        known = self._known_codes()
        codes = [-1] * self._boxes if known is None else array("q", known).tolist()
        wanted = {code >> ROW_BITS for code in codes if code >= 0}
        regions, serials = [], []
        for piece in pieces(self._recipe):
            parts = [None] if piece.polygons is None else [_rounded(polygon) for polygon in piece.polygons]
            if not parts and (piece.serial in wanted or not regions):
                parts = [()]  # it is not to be seen, but it is the sample itself, or a box is behind it
            regions += [(piece, part) for part in parts]
            serials += [piece.serial] * len(parts)
        position = {serial: n for n, serial in reversed(list(enumerate(serials))) if serial is not None}
        rows = []
        for code in codes:
            place = position.get(code >> ROW_BITS) if code >= 0 else None
            rows.append(None if place is None else (place, code & ((1 << ROW_BITS) - 1)))
        behind: dict[int, list[int]] = {}
        for row in rows:
            if row is not None:
                behind.setdefault(row[0], []).append(row[1])
        self._sources = tuple(
            Source(piece.path, piece.index, region, piece.how, tuple(dict.fromkeys(behind.get(n, ()))))
            for n, (piece, region) in enumerate(regions)
        )
        self._rows = tuple(rows)
        self._recipe = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            return Provenance, (self._sources, self._rows, self.size)
        return _unpacked, (self._recipe, self._known_codes(), self._boxes, self.size)

    def _known_codes(self) -> bytes | None:
        return self._codes() if callable(self._codes) else self._codes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Provenance):
            return NotImplemented
        return (self.sources, self.rows, self.size) == (other.sources, other.rows, other.size)

    def __hash__(self) -> int:
        return hash((self.sources, self.rows, self.size))

    def __repr__(self) -> str:
        return f"Provenance(sources={self.sources!r}, rows={self.rows!r}, size={self.size!r})"


def unknown(sample: _Size | None = None) -> Provenance:
    """Return the provenance of an image of which nothing is known but its tensor (channels, height, width)."""
    height, width = (0, 0) if sample is None else sample.shape[-2:]
    return Provenance.of(NOTHING, None, 0, (int(height), int(width)))


def joined(parts: Sequence[Provenance]) -> Provenance:
    """Return the provenance of an image that was made of others nobody knows how: all their files, and no place.

    Examples:
        >>> a, b = (Provenance([Source(path, 0, None, "image")], (), (8, 8)) for path in ("a.jpg", "b.jpg"))
        >>> joined([a, b]).files()
        ('a.jpg', 'b.jpg')
    """
    sources = [replace(source, region=None, rows=()) for part in parts for source in part.sources]
    return Provenance(sources, [None] * sum(len(part.rows) for part in parts), parts[0].size)


def _unpacked(recipe: Recipe, codes: bytes | None, boxes: int, size: tuple[int, int]) -> Provenance:
    return Provenance.of(recipe, codes, boxes, size)


def _rounded(polygon: Polygon) -> Polygon:
    """Round to a thousandth of a pixel, and drop corners that coincide."""
    corners = [(round(x, 3) + 0.0, round(y, 3) + 0.0) for x, y in polygon]  # no negative zeros
    return tuple(corner for n, corner in enumerate(corners) if corner != corners[n - 1])


class _Reader:
    """Reads the parts of a JSON text, and refuses what is not ours."""

    @staticmethod
    def keys(name: str, value: Any, wanted: set[str]) -> None:
        if not isinstance(value, dict) or set(value) != wanted:
            raise _refused(f"{name} is {_short(value)}, and not an object with {', '.join(sorted(wanted))}")

    @staticmethod
    def a_list(name: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise _refused(f"{name} is {_short(value)}, and not a list")
        return value

    @staticmethod
    def numbers(name: str, value: Any, count: int | None = None) -> list[int]:
        whole = _Reader.a_list(name, value)
        if not all(type(v) is int and v >= 0 for v in whole) or count not in {None, len(whole)}:
            raise _refused(f"{name} is {_short(value)}, and not whole numbers from 0")
        return whole

    @staticmethod
    def source(name: str, value: Any) -> Source:
        _Reader.keys(name, value, {"path", "index", "region", "how", "rows"})
        path, index, how, region = value["path"], value["index"], value["how"], value["region"]
        if not isinstance(path, str) or type(index) is not int or how not in HOWS:
            raise _refused(f"{name} has path {_short(path)}, index {_short(index)}, how {_short(how)}")
        if region is not None:
            region = tuple(_Reader.point(f"{name}.region", p) for p in _Reader.a_list(f"{name}.region", region))
        return Source(path, index, region, how, tuple(_Reader.numbers(f"{name}.rows", value["rows"])))

    @staticmethod
    def point(name: str, value: Any) -> tuple[float, float]:
        if (
            not isinstance(value, list)
            or len(value) != 2
            or not all(type(v) in {int, float} and abs(v) < 1e9 and math.isfinite(v) for v in value)
        ):
            raise _refused(f"{name} has the corner {_short(value)}")
        return float(value[0]), float(value[1])

    @staticmethod
    def row(name: str, value: Any, sources: int) -> tuple[int, int] | None:
        if value is None:
            return None
        pair = _Reader.numbers(name, value, 2)
        if pair[0] >= sources:
            raise _refused(f"{name} is {_short(value)}, and there are {sources} sources")
        return pair[0], pair[1]


def _refused(what: str) -> InvalidCallError:
    return InvalidCallError(f"Not a provenance: {what}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
