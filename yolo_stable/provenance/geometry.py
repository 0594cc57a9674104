"""Geometry: where the files of a training image lie in it, worked out from the recipe of the image.

A recipe says how an image was put together: nested tuples of plain numbers, cheap to make while images load, and read only when
somebody asks. Its kinds:

- ``("image", serial, index, path, width, height)``: a file, read and resized;
- ``("mosaic", ((child, dx, dy, x1, y1, x2, y2), ...))``: each child moved by ``dx, dy`` and cut to a rectangle;
- ``("warp", child, matrix, width, height)``: nine numbers, row by row, for pixel centres as OpenCV has them; and the size that
  comes out, as in the next two;
- ``("letterbox", child, sx, sy, left, top, width, height)``;
- ``("mirror", child, axis, length)``: axis 0 is x, 1 is y;
- ``("mixup", below, above)``; ``("cutmix", below, above, x1, y1, x2, y2)``;
- ``("paste", below, above, ((serial, original, contour), ...))``: objects cut out of ``above``, each with a serial of its own
  beside that of its file; the contour is bytes of int32 (x, y) of pixels;
- ``("boxes", child, codes)``: the label rows behind the boxes, which geometry ignores;
- ``("unknown", child, ...)``: the children went in, nobody knows where.

A serial tells two uses of one file apart. The pixel in the upper left corner covers 0 to 1.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

Point = tuple[float, float]
Polygon = tuple[Point, ...]
Recipe = tuple[Any, ...]

NOTHING: Recipe = ("unknown",)
"""The recipe of an image that was not followed from its beginning."""
HOWS = ("image", "mosaic", "mixup", "cutmix", "copy_paste", "unknown")
"""How a file came into an image: it is the sample itself, an augmentation took it, or one that is not known did."""
SMALLEST = 1e-6
"""Pixels squared; below it a polygon is a line."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A file's part in an image, on the way through its recipe."""

    serial: int | None
    """None: an object that was pasted without its own label row."""
    index: int
    path: str
    how: str
    polygons: tuple[Polygon, ...] | None
    """None: nobody knows where; empty: nowhere in the picture."""


def pieces(recipe: Recipe) -> list[Piece]:
    """Return what an image is made of, in the order of painting.

    Examples:
        >>> both = ("mixup", ("image", 0, 5, "a.jpg", 4, 2), ("mirror", ("image", 1, 6, "b.jpg", 4, 2), 0, 4))
        >>> [(piece.path, piece.how) for piece in pieces(both)]
        [('a.jpg', 'image'), ('b.jpg', 'mixup')]
    """
    kind, *parts = recipe
    return _READERS[kind](*parts)


def holds(polygon: Polygon, x: float, y: float) -> bool:
    """Return whether a point lies in a polygon.

    Examples:
        >>> holds(((0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0)), 1.0, 0.5)
        True
    """
    inside = False
    for (x1, y1), (x2, y2) in zip(polygon, (*polygon[1:], *polygon[:1]), strict=True):
        if (y1 > y) != (y2 > y) and x < (x2 - x1) * (y - y1) / (y2 - y1) + x1:
            inside = not inside
    return inside


# ---- one reader for each kind ----------------------------------------------------------------------------------------------


def _image(serial: int, index: int, path: str, width: int, height: int) -> list[Piece]:
    return [Piece(serial, index, path, "image", (_rectangle(0, 0, width, height),))]


def _mosaic(tiles: Sequence[tuple[Any, ...]]) -> list[Piece]:
    found: list[Piece] = []
    for n, (child, dx, dy, *rectangle) in enumerate(tiles):
        moved = _moved(pieces(child), lambda x, y, dx=dx, dy=dy: (x + dx, y + dy))
        placed = _within(moved, _rectangle(rectangle[0], rectangle[1], rectangle[2], rectangle[3]))
        found += _brought(placed, "mosaic") if n else placed
    return found


def _warp(child: Recipe, matrix: Sequence[float], width: int, height: int) -> list[Piece]:
    a, b, c, d, e, f, g, h, i = matrix
    # OpenCV counts from the centre of the first pixel, half a pixel further.
    c, f, i = c - (a + b) / 2, f - (d + e) / 2, i - (g + h) / 2

    def project(x: float, y: float) -> Point:
        depth = g * x + h * y + i
        return (a * x + b * y + c) / depth + 0.5, (d * x + e * y + f) / depth + 0.5

    def across(polygon: Polygon) -> list[Polygon]:
        # Beyond the horizon of a strong perspective OpenCV draws what lies behind the camera: a second part.
        sides = (_cut(polygon, g, h, i - 1e-9), _cut(polygon, -g, -h, -i - 1e-9))
        return [tuple(project(x, y) for x, y in side) for side in sides if side]

    found = _changed(pieces(child), lambda polygons: tuple(part for polygon in polygons for part in across(polygon)))
    return _within(found, _rectangle(0, 0, width, height))


def _letterbox(child: Recipe, sx: float, sy: float, left: float, top: float, width: int, height: int) -> list[Piece]:
    moved = _moved(pieces(child), lambda x, y: (x * sx + left, y * sy + top))
    return _within(moved, _rectangle(0, 0, width, height))


def _mirror(child: Recipe, axis: int, length: int) -> list[Piece]:
    return _moved(pieces(child), lambda x, y: (x, length - y) if axis else (length - x, y))


def _mixup(below: Recipe, above: Recipe) -> list[Piece]:
    return pieces(below) + _brought(pieces(above), "mixup")


def _cutmix(below: Recipe, above: Recipe, x1: int, y1: int, x2: int, y2: int) -> list[Piece]:
    return pieces(below) + _brought(_within(pieces(above), _rectangle(x1, y1, x2, y2)), "cutmix")


def _paste(below: Recipe, above: Recipe, objects: Sequence[tuple[int, int, bytes]]) -> list[Piece]:
    found, donors = pieces(below), pieces(above)
    for serial, original, contour in objects:
        points = array("i", contour)
        outline = tuple((x + 0.5, y + 0.5) for x, y in zip(points[::2], points[1::2], strict=True))
        for donor in donors:
            own = donor.serial == original
            cut = None if donor.polygons is None else _kept(_clipped(outline, window) for window in donor.polygons)
            if own or cut is None or cut:
                found.append(replace(donor, serial=serial if own else None, how="copy_paste", polygons=cut))
    return found


def _boxes(child: Recipe, codes: Any) -> list[Piece]:
    return pieces(child)


def _unknown(*children: Recipe) -> list[Piece]:
    # What an unknown transform brought in are recipes of files; the first child is the image that it was given.
    found = [replace(piece, polygons=None) for child in children[:1] for piece in pieces(child)]
    brought = _brought([piece for child in children[1:] for piece in pieces(child)], "unknown")
    return found + [replace(piece, polygons=None) for piece in brought]


_READERS = {
    "image": _image,
    "mosaic": _mosaic,
    "warp": _warp,
    "letterbox": _letterbox,
    "mirror": _mirror,
    "mixup": _mixup,
    "cutmix": _cutmix,
    "paste": _paste,
    "boxes": _boxes,
    "unknown": _unknown,
}

# ---- polygons --------------------------------------------------------------------------------------------------------------


def _brought(found: list[Piece], how: str) -> list[Piece]:
    return [replace(piece, how=how) for piece in found]


def _moved(found: list[Piece], move: Callable[[float, float], Point]) -> list[Piece]:
    return _changed(found, lambda polygons: tuple(tuple(move(x, y) for x, y in polygon) for polygon in polygons))


def _within(found: list[Piece], window: Polygon) -> list[Piece]:
    return _changed(found, lambda polygons: _kept(_clipped(polygon, window) for polygon in polygons))


def _changed(found: list[Piece], change: Callable[[tuple[Polygon, ...]], tuple[Polygon, ...]]) -> list[Piece]:
    return [piece if piece.polygons is None else replace(piece, polygons=change(piece.polygons)) for piece in found]


def _kept(polygons: Any) -> tuple[Polygon, ...]:
    return tuple(polygon for polygon in polygons if abs(_area(polygon)) > SMALLEST)


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    return ((x1, y1), (x2, y1), (x2, y2), (x1, y2))


def _area(polygon: Polygon) -> float:
    """Return the area, positive when the corners of a polygon go clockwise on the screen."""
    pairs = zip(polygon, (*polygon[1:], *polygon[:1]), strict=True)
    return sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in pairs) / 2


def _clipped(polygon: Polygon, window: Polygon) -> Polygon:
    """Return the part of a polygon of any form that lies in a convex window (Sutherland and Hodgman)."""
    sign = 1.0 if _area(window) > 0 else -1.0
    for (x1, y1), (x2, y2) in zip(window, (*window[1:], *window[:1]), strict=True):
        a, b = sign * (y1 - y2), sign * (x2 - x1)
        polygon = _cut(polygon, a, b, -(a * x1 + b * y1))
    return polygon


def _cut(polygon: Polygon, a: float, b: float, c: float) -> Polygon:
    """Return the part of a polygon where ``a * x + b * y + c`` is not negative."""
    sides = [a * x + b * y + c for x, y in polygon]
    if all(side >= 0 for side in sides):
        return polygon
    kept = []
    for n, (point, side) in enumerate(zip(polygon, sides, strict=True)):
        before, other = polygon[n - 1], sides[n - 1]
        if (side >= 0) != (other >= 0):
            share = other / (other - side)
            kept.append((before[0] + share * (point[0] - before[0]), before[1] + share * (point[1] - before[1])))
        if side >= 0:
            kept.append(point)
    return tuple(kept)
