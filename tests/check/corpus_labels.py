"""Odd label files, as converters, spreadsheets and editors leave them, each with the objects that are meant."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from check.corpus_member import BOX, OBJECT, Group, Member
from check.planted import encoded, picture

POLYGON = "0 0.2 0.2 0.8 0.2 0.8 0.8 0.2 0.8"
SQUARE = (0, 0.5, 0.5, 0.6, 0.6)
POINTS = "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.5 0.5 2 0.6 0.6 1"
POSE = (0, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 2, 0.5, 0.5, 2, 0.6, 0.6, 1)
POINTS_2D = "0 0.5 0.5 0.4 0.4 0.4 0.4 0.5 0.5 0.6 0.6"
POSE_2D = (0, 0.5, 0.5, 0.4, 0.4, 0.4, 0.4, 1, 0.5, 0.5, 1, 0.6, 0.6, 1)
OBJECTS = tuple[tuple[float, ...], ...]


def labelled(
    name: str,
    labels: str | bytes | None,
    objects: OBJECTS | None = (OBJECT,),
    level: str | None = None,
    why: str = "",
    plant: Callable[[Path, Path], Any] | None = None,
) -> Member:
    content = labels.encode() if isinstance(labels, str) else labels
    image = encoded(picture(zlib.crc32(f"label {name}".encode())))
    return Member(f"{name}.png", image, content, objects=objects, plant=plant, level=level, why=why)


def _writing() -> Iterator[Member]:
    """The same box, written in many ways, and bytes that are no box."""
    two = "0 0.5 0.5 0.4 0.4\n1 0.3 0.3 0.2 0.2\n"
    both = (OBJECT, (1, 0.3, 0.3, 0.2, 0.2))
    yield labelled("plain", two, both)
    yield labelled("byte order mark", b"\xef\xbb\xbf" + two.encode(), both)
    yield labelled("two marks", b"\xef\xbb\xbf\xef\xbb\xbf" + two.encode(), both)
    yield labelled("mark inside", two.replace("1 ", "\ufeff1 "), both)
    yield labelled("crlf", two.replace("\n", "\r\n"), both)
    yield labelled("cr", two.replace("\n", "\r"), both)
    yield labelled("crcrlf", two.replace("\n", "\r\r\n"), both)
    yield labelled("tabs", two.replace(" ", "\t"), both)
    yield labelled("wide spaces", "  " + two.replace(" ", "   "), both)
    yield labelled("blank lines", "\n\n" + two.replace("\n", "\n \n\n"), both)
    yield labelled("no last newline", two.strip(), both)
    yield labelled("nbsp", two.replace(" ", "\u00a0"), both)
    yield labelled("form feed", two.replace("\n", "\x0c"), both)
    yield labelled("form feed between", two.replace("0.5 0.5", "0.5\x0c0.5"), both)
    yield labelled("line separator", two.replace("\n", "\u2028"), both)
    yield labelled("next line", two.replace("\n", "\x85"), both)
    yield labelled("utf 16", two.encode("utf-16"), both)
    yield labelled("latin 1", two.encode() + b"# Gr\xf6\xdfe\n", both)
    yield labelled("nul behind", two.encode() + b"\0\0\0", both)
    yield labelled("end mark of dos", two.encode() + b"\x1a", both)
    yield labelled("empty", b"", ())
    yield labelled("only blanks", b" \r\n\t\n", ())
    yield labelled("only a mark", b"\xef\xbb\xbf", ())
    yield labelled("missing", None, ())
    yield labelled("exponents", "0 5e-1 5.0E-01 4e-1 +4.0e-1\n")
    yield labelled("signs", "+0 +0.5 +0.5 +0.4 +0.4\n")
    yield labelled("bare points", "0. .5 .5 .4 .4\n")
    yield labelled("leading zeros", "00 00.5 0.50 0.400 0000.4\n")
    yield labelled("long numbers", f"0 0.{'5' + '0' * 300} 0.5 0.4 0.4\n")
    yield labelled("class 0.0", "0.0 0.5 0.5 0.4 0.4\n")
    yield labelled("class 1e0", "1e0 0.3 0.3 0.2 0.2\n", both[1:])
    yield labelled("class -0", "-0 0.5 0.5 0.4 0.4\n")
    yield labelled("underscore", "0 0.5_0 0.5 0.4 0.4\n")
    yield labelled("class 0_0", "0_0 0.5 0.5 0.4 0.4\n")
    yield labelled("wide digits", "0 ０.５ 0.5 0.4 0.4\n")
    yield labelled("arabic digits", "\u0660 0.5 0.5 0.4 0.4\n")
    yield labelled("hexadecimal", "0x0 0.5 0.5 0.4 0.4\n")
    yield labelled("fraction", "0 1/2 1/2 0.4 0.4\n")
    yield labelled("percent", "0 50% 50% 40% 40%\n")
    yield labelled("suffix", "0 0.5f 0.5f 0.4f 0.4f\n")
    yield labelled("fortran", "0 5d-1 0.5 0.4 0.4\n")
    yield labelled("minus sign", "0 0.5 0.5 \u22120.4 0.4\n")
    yield labelled("commas", "0,0.5,0.5,0.4,0.4\n")
    yield labelled("comma and space", "0, 0.5, 0.5, 0.4, 0.4\n")
    yield labelled("decimal commas", "0 0,5 0,5 0,4 0,4\n")
    yield labelled("semicolons", "0;0.5;0.5;0.4;0.4\n")
    yield labelled("brackets", "[0, 0.5, 0.5, 0.4, 0.4]\n")
    yield labelled("quotes", '"0" "0.5" "0.5" "0.4" "0.4"\n')
    yield labelled("comment", f"# boxes\n{BOX}\n")
    yield labelled("comment behind", f"{BOX} # a\n")
    yield labelled("heading", f"class x y width height\n{BOX}\n")
    yield labelled("class name", "a 0.5 0.5 0.4 0.4\n")
    yield labelled("json", b'{"shapes": []}')
    yield labelled("xml", b"<annotation></annotation>")
    yield labelled("the image itself", encoded(picture(7)))


def _values() -> Iterator[Member]:
    """Boxes with odd values."""
    for text in ("nan", "NaN", "inf", "-inf", "1e400", "-1", "2", "1.02", "1.5", "320", "-0.02"):
        yield labelled(f"x is {text}", f"0 {text} 0.5 0.4 0.4\n", None)
        yield labelled(f"height is {text}", f"0 0.5 0.5 0.4 {text}\n", None)
        yield labelled(f"class is {text}", f"{text} 0.5 0.5 0.4 0.4\n", None)
    yield labelled("class is 1e10", "1e10 0.5 0.5 0.4 0.4\n", None)
    yield labelled("class is 0.5", "0.5 0.5 0.5 0.4 0.4\n", None)
    yield labelled("class is 0.0000001", "0.0000001 0.5 0.5 0.4 0.4\n", None)
    yield labelled("class is -0.005", "-0.005 0.5 0.5 0.4 0.4\n", None)
    yield labelled("class is 0.99999999999", "0.99999999999 0.5 0.5 0.4 0.4\n", None)
    for text, value in (("1.000001", 1.000001), ("1.005", 1.005), ("1.01", 1.01), ("-0.005", -0.005), ("-1e-9", 0.0)):
        yield labelled(f"x is {text}", f"0 {text} 0.5 0.4 0.4\n", ((0, value, 0.5, 0.4, 0.4),))
    yield labelled("x is 1.0100001", "0 1.0100001 0.5 0.4 0.4\n", None)
    yield labelled("width 1.005", "0 0.5 0.5 1.005 0.4\n", ((0, 0.5, 0.5, 1.005, 0.4),))
    yield labelled("width -0.005", "0 0.5 0.5 -0.005 0.4\n", None)
    yield labelled("width -1e-9", "0 0.5 0.5 -1e-9 0.4\n", None)
    lost = "the object is dropped or never matched, and its place is taught to be background"
    for size, level in (("0", "error"), ("1e-9", "warning"), ("1e-45", "warning"), ("1e-50", "error")):
        yield labelled(f"size {size}", f"0 0.5 0.5 {size} {size}\n", None, level, lost)
    yield labelled("line", "0 0.5 0.5 0.4 0\n", None, "error", lost)
    yield labelled("whole image", "0 0.5 0.5 1 1\n", ((0, 0.5, 0.5, 1, 1),))
    yield labelled("pixel box", "0 0.5 0.5 0.0104 0.0156\n", ((0, 0.5, 0.5, 0.0104, 0.0156),))
    yield labelled("leaving", "0 0.9 0.5 0.6 0.4\n", None, "warning", "the box is cut at the border: its centre moves")
    yield labelled("rounded over the border", "0 0.9 0.5 0.200001 0.4\n", ((0, 0.9, 0.5, 0.200001, 0.4),))
    yield labelled("many", "".join(f"0 {0.1 + n % 9 / 10} {0.1 + n // 9 / 20} 0.05 0.04\n" for n in range(120)), None)
    yield labelled("duplicate", f"{BOX}\n{BOX}\n")
    yield labelled("duplicate in other digits", f"{BOX}\n0.0 0.50 5e-1 0.4 0.40\n")
    yield labelled("duplicate in float32", f"{BOX}\n0 0.500000001 0.5 0.4 0.4\n")
    yield labelled("same box, two classes", f"{BOX}\n1 0.5 0.5 0.4 0.4\n", (OBJECT, (1, *OBJECT[1:])))
    for columns in (1, 2, 3, 4, 6):
        yield labelled(f"{columns} columns", " ".join([*BOX.split(), "0.9"][:columns]) + "\n", None)
    yield labelled("one row short", f"{BOX}\n0 0.5 0.5 0.4\n", None)
    yield labelled("one row with a score", f"{BOX}\n0 0.3 0.3 0.2 0.2 0.9\n", None)
    yield labelled("polygon for a box", f"{POLYGON}\n", (SQUARE,))
    yield labelled("triangle for a box", "0 0.2 0.2 0.8 0.2 0.8 0.8\n", (SQUARE,))
    yield labelled("polygon with a number too many", f"{POLYGON} 0.5\n", None)
    yield labelled("polygon and box", f"{POLYGON}\n{BOX}\n", None)
    yield labelled("polygon and six columns", f"{POLYGON}\n{BOX} 0.9\n", None)
    yield labelled("keypoints read as a polygon", "0 0.5 0.5 0.4 0.4 0.4 0.4 2 0.6 0.6 2\n", None)
    why = "the centre and the size of the box are read as corners: another box is taken"
    yield labelled("points read as a polygon", f"{POINTS_2D}\n", (OBJECT,), "warning", why)
    yield labelled("corners for a box", "0 0.3 0.3 0.7 0.7 0.9 0.8 0.2 0.9 0\n", None)
    yield labelled("dota", "10 10 20 10 20 20 10 20 plane 0\n", None)

    def folder(_: Path, label: Path) -> None:
        label.mkdir()

    def link(_: Path, label: Path) -> None:
        real = label.parents[2] / "elsewhere.txt"
        real.write_text(f"{BOX}\n")
        label.symlink_to(real)

    unseen = "labels that are there and are not read: the image is taken for background"
    yield labelled("folder", None, None, "warning", unseen, folder)
    yield labelled("link", None, (OBJECT,), plant=link)
    yield labelled("broken link", None, None, "warning", unseen, lambda _, label: label.symlink_to("nowhere"))
    yield labelled(
        "upper", None, None, "warning", unseen, lambda _, label: label.with_suffix(".TXT").write_text(f"{BOX}\n")
    )
    yield labelled(
        "doubled", None, None, "warning", unseen, lambda _, label: label.with_suffix(".png.txt").write_text(f"{BOX}\n")
    )
    yield labelled(
        "beside", None, None, "error", unseen, lambda image, _: image.with_suffix(".txt").write_text(f"{BOX}\n")
    )


def _polygons() -> Iterator[Member]:
    def of(
        name: str, labels: str, objects: OBJECTS | None = (SQUARE,), level: str | None = None, why: str = ""
    ) -> Member:
        return labelled(f"seg {name}", f"{labels}\n", objects, level, why)

    yield of("plain", POLYGON)
    yield of("triangle", "0 0.2 0.2 0.8 0.2 0.8 0.8")
    yield of("closed", f"{POLYGON} 0.2 0.2")
    yield of("class 0.0", POLYGON.replace("0 ", "0.0 ", 1))
    yield of("exponents", "0 2e-1 .2 8e-1 .2 .8 .8 .2 .8")
    yield of("crlf", f"{POLYGON}\r")
    yield of("point twice", "0 0.2 0.2 0.2 0.2 0.8 0.2 0.8 0.8 0.2 0.8")
    yield of("number too many", f"{POLYGON} 0.5", None)
    yield of("two points among others", f"{POLYGON}\n0 0.1 0.1 0.2 0.2", None)
    yield of("box among others", f"{POLYGON}\n{BOX}", None)
    yield of("two and a half points", f"{POLYGON}\n0 0.1 0.1 0.2 0.2 0.3", None)
    yield of("six columns", "0 0.1 0.1 0.2 0.2 0.3", None)
    flat = "a polygon without an area is an empty mask, and is taken"
    yield of("on a line", "0 0.1 0.1 0.2 0.2 0.3 0.3", None, "error", flat)
    yield of("one point thrice", "0 0.1 0.1 0.1 0.1 0.1 0.1", None, "error", flat)
    yield of("below a pixel", "0 0.5 0.5 0.5001 0.5 0.5001 0.5001", None, "warning", flat)
    yield of(
        "bow tie",
        "0 0.2 0.2 0.8 0.8 0.8 0.2 0.2 0.8",
        (SQUARE,),
        "warning",
        "the sides cross: the mask is not the object",
    )
    yield of("outside", "0 0.2 0.2 1.2 0.2 1.2 0.8 0.2 0.8", None)
    yield of("outside by rounding", "0 0.2 0.2 1.000001 0.2 1.000001 0.8 0.2 0.8", None)
    yield of("below by rounding", "0 -0.000001 0.2 0.8 0.2 0.8 0.8 -0.000001 0.8", None)
    yield of("below by a bit", "0 -0.005 0.2 0.8 0.2 0.8 0.8 -0.005 0.8", None)
    yield of("below", "0 -0.2 0.2 0.8 0.2 0.8 0.8 -0.2 0.8", None)
    yield of("nan", "0 nan 0.2 0.8 0.2 0.8 0.8 0.2 0.8", None)
    yield of("nan in the middle", "0 0.2 0.2 0.8 0.2 nan 0.8 0.2 0.8", None)
    yield of("pixels", "0 20 20 80 20 80 80 20 80", None)
    yield of("class 2", POLYGON.replace("0 ", "2 ", 1), None)
    yield of("class -1", POLYGON.replace("0 ", "-1 ", 1), None)
    yield of("class name", POLYGON.replace("0 ", "cat ", 1), None)
    circle = [f"{0.5 + 0.3 * f(n * math.tau / 1500):.6f}" for n in range(1500) for f in (math.cos, math.sin)]
    yield of("1500 points", " ".join(["0", *circle]))
    yield of("duplicate", f"{POLYGON}\n{POLYGON}")
    yield of("two of one box", f"{POLYGON}\n0 0.2 0.2 0.8 0.2 0.8 0.8", (SQUARE, SQUARE))
    yield of("two lengths", f"{POLYGON}\n1 0.1 0.1 0.3 0.1 0.3 0.3", (SQUARE, (1, 0.2, 0.2, 0.2, 0.2)))
    yield of("whole image", "0 0 0 1 0 1 1 0 1", ((0, 0.5, 0.5, 1, 1),))
    yield labelled("seg empty", "", ())
    yield labelled("seg missing", None, ())


def _keypoints() -> Iterator[Member]:
    def of(
        name: str, labels: str, objects: OBJECTS | None = (POSE,), level: str | None = None, why: str = ""
    ) -> Member:
        return labelled(f"pose {name}", f"{labels}\n", objects, level, why)

    box = "0 0.5 0.5 0.4 0.4"
    yield of("plain", POINTS)
    yield of("two", f"{POINTS}\n1 0.3 0.3 0.2 0.2 0.3 0.3 1 0.3 0.3 2 0.35 0.3 2", None)
    yield of("unseen", f"{box} 0.4 0.4 2 0 0 0 0.6 0.6 1", ((*OBJECT, 0.4, 0.4, 2, 0, 0, 0, 0.6, 0.6, 1),))
    yield of("none seen", f"{box} 0 0 0 0 0 0 0 0 0", ((*OBJECT, *[0] * 9),))
    yield of("seen as floats", f"{box} 0.4 0.4 2.0 0.5 0.5 2.000000 0.6 0.6 1.0")
    yield of("fraction seen", f"{box} 0.4 0.4 0.5 0.5 0.5 2 0.6 0.6 1", None, "warning", "a visibility is 0, 1 or 2")
    yield of("seen 3", f"{box} 0.4 0.4 3 0.5 0.5 2 0.6 0.6 1", None, "warning", "a visibility is 0, 1 or 2")
    yield of("seen -1", f"{box} 0.4 0.4 -1 0.5 0.5 2 0.6 0.6 1", None)
    yield of("seen nan", f"{box} 0.4 0.4 nan 0.5 0.5 2 0.6 0.6 1", None)
    yield of(
        "seen at the corner",
        f"{box} 0 0 2 0.5 0.5 2 0.6 0.6 1",
        None,
        "warning",
        "0 0 is how a missing point is written",
    )
    yield of("no visibility", POINTS_2D, None)
    yield of("one point too few", f"{box} 0.4 0.4 2 0.5 0.5 2", None)
    yield of("one point too many", f"{POINTS} 0.7 0.7 2", None)
    yield of("box alone", box, None)
    yield of("box among others", f"{POINTS}\n{box}", None)
    yield of("polygon", POLYGON, None)
    yield of("point outside", f"{box} 1.2 0.4 2 0.5 0.5 2 0.6 0.6 1", None)
    yield of("point outside by rounding", f"{box} 1.000001 0.4 2 0.5 0.5 2 0.6 0.6 1", None)
    yield of("point below", f"{box} -0.2 0.4 2 0.5 0.5 2 0.6 0.6 1", None)
    yield of("point below by a bit", f"{box} -0.005 0.4 2 0.5 0.5 2 0.6 0.6 1", None)
    yield of("point nan", f"{box} nan 0.4 2 0.5 0.5 2 0.6 0.6 1", None)
    yield of("point in pixels", f"{box} 40 40 2 50 50 2 60 60 1", None)
    yield of(
        "box in pixels",
        "0 48 32 20 20 0.4 0.4 2 0.5 0.5 2 0.6 0.6 1",
        None,
        "error",
        "only the points are held to 0..1",
    )
    yield of(
        "box a bit over",
        "0 1.2 0.5 0.4 0.4 0.4 0.4 2 0.5 0.5 2 0.6 0.6 1",
        None,
        "error",
        "only the points are held to 0..1",
    )
    yield of("box without area", "0 0.5 0.5 0 0 0.5 0.5 2 0.5 0.5 2 0.5 0.5 1", None, "error", "no area")
    yield of("far from its box", f"{box} 0.05 0.05 2 0.5 0.5 2 0.6 0.6 1", None)
    yield of("class 5", POINTS.replace("0 ", "5 ", 1), None)
    yield of("duplicate", f"{POINTS}\n{POINTS}")
    yield of("two of one box", f"{POINTS}\n{box} 0.4 0.4 2 0.5 0.5 2 0.6 0.6 2", None)
    yield labelled("pose empty", "", ())
    yield labelled("pose missing", None, ())


def _points() -> Iterator[Member]:
    def of(
        name: str, labels: str, objects: OBJECTS | None = (POSE_2D,), level: str | None = None, why: str = ""
    ) -> Member:
        return labelled(f"flat {name}", f"{labels}\n", objects, level, why)

    box = "0 0.5 0.5 0.4 0.4"
    yield of("plain", POINTS_2D)
    yield of("with visibility", POINTS, None)
    corner = "0 0 is taken for a point that is seen at the corner"
    yield of("zero point", f"{box} 0 0 0.5 0.5 0.6 0.6", None, "warning", corner)
    yield of("zero points", f"{box} 0 0 0 0 0 0", None, "warning", corner)
    yield of("below by a bit", f"{box} -0.005 0.4 0.5 0.5 0.6 0.6", None)
    yield of("minus one", f"{box} -1 -1 0.5 0.5 0.6 0.6", None)
    yield of("short", f"{box} 0.4 0.4", None)
    yield of("at the border", f"{box} 0 0.4 1 0.5 0.6 0.6", ((*OBJECT, 0, 0.4, 1, 1, 0.5, 1, 0.6, 0.6, 1),))


def _corners() -> Iterator[Member]:
    def of(
        name: str, labels: str, objects: OBJECTS | None = (SQUARE,), level: str | None = None, why: str = ""
    ) -> Member:
        return labelled(f"obb {name}", f"{labels}\n", objects, level, why)

    yield of("plain", POLYGON)
    yield of("turned", "0 0.5 0.2 0.8 0.5 0.5 0.8 0.2 0.5")
    yield of("clockwise not", "0 0.2 0.8 0.8 0.8 0.8 0.2 0.2 0.2")
    yield of("angle", f"{BOX} 0.3", None)
    yield of("seven numbers", "0 0.2 0.2 0.8 0.2 0.8 0.8 0.2", None)
    yield of("a score", f"{POLYGON} 0.9", None)
    yield of("five points", f"{POLYGON} 0.2 0.5")
    yield of("three points", "0 0.2 0.2 0.8 0.2 0.8 0.8", None)
    yield of("box among others", f"{POLYGON}\n{BOX}", None)
    yield of("outside", "0 0.2 0.2 1.2 0.2 1.2 0.8 0.2 0.8", None)
    yield of("outside by a bit", "0 0.2 0.2 1.005 0.2 1.005 0.8 0.2 0.8", None)
    yield of("below by a bit", "0 -0.005 0.2 0.8 0.2 0.8 0.8 -0.005 0.8", None)
    yield of("no area", "0 0.2 0.2 0.8 0.2 0.8 0.2 0.2 0.2", None, "error", "a box without an area is taken")
    yield of("one point", "0 0.2 0.2 0.2 0.2 0.2 0.2 0.2 0.2", None, "error", "a box without an area is taken")
    yield of("crossed", "0 0.2 0.2 0.8 0.8 0.8 0.2 0.2 0.8", None)
    yield of("pixels", "0 20 20 80 20 80 80 20 80", None)
    yield of("dota", "20 20 80 20 80 80 20 80 plane 0", None)
    yield of("nan", "0 nan 0.2 0.8 0.2 0.8 0.8 0.2 0.8", None)
    yield of("duplicate", f"{POLYGON}\n{POLYGON}")
    yield labelled("obb empty", "", ())


def groups() -> Iterator[Group]:
    """Yield the data sets of odd labels."""
    pose: dict[str, Any] = {"kpt_shape": [3, 3], "flip_idx": [0, 1, 2]}
    yield Group("writing", tuple(_writing()))
    yield Group("values", tuple(_values()))
    yield Group("polygons", tuple(_polygons()), "segment")
    yield Group("keypoints", tuple(_keypoints()), "pose", pose)
    yield Group("points", tuple(_points()), "pose", {**pose, "kpt_shape": [3, 2]})
    yield Group("corners", tuple(_corners()), "obb")
