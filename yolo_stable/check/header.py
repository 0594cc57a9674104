"""Image header: format, size, depth, orientation, and whether the file is whole, without decoding it."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from .._shared.regular_file import open_regular
from .finding import DataFinding, Severity
from .opening import BROKEN, MOST_BYTES, open_image
from .rules import found

SMALLEST_SIDE = 10
"""Pixels; Ultralytics refuses images below."""
LARGEST_SIDE = 12_000
LARGEST_AREA = 100_000_000
REFUSED_AREA = 178_956_970
"""Pixels above which Pillow refuses an image that may fill the memory."""
LARGEST_ASPECT = 10.0
ENDINGS = {
    "JPEG": ("jpg", "jpeg"),
    "MPO": ("mpo", "jpg", "jpeg"),
    "PNG": ("png",),
    "TIFF": ("tif", "tiff", "dng"),
    "BMP": ("bmp",),
    "WEBP": ("webp",),
    "AVIF": ("avif",),
    "HEIF": ("heic", "heif"),
    "JPEG2000": ("jp2",),
}
"""Endings of the formats that Ultralytics accepts, by Pillow's names."""
TAIL = 64
"""Bytes at the end that tell files apart: a PNG's last checksum, the end of a JPEG's scan."""
_ORIENTATION = 274
_GREY = {"1", "L", "I;16", "I;16B", "I", "F"}
_FLAT_JPEG = 0.036
"""Most bytes per pixel of a JPEG of one colour: 6 bits for each of 3 channels of a block of 64 pixels."""
_PROBE = 2048
"""Bytes of a PNG's first row that are read."""
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass(slots=True)
class Header:
    """What was read of one image."""

    width: int = 0
    """Pixels, upright; 0 when the image cannot be read."""
    height: int = 0
    format: str = ""
    mode: str = ""
    key: int = 0
    """Length and end of the file as one number, equal for equal files."""
    suspect: bool = False
    """Whether it may be damaged or of one colour, which only decoding tells."""
    damaged: bool = False
    """Whether it is known to be damaged; decoding would only repeat that."""
    trailing: bool = False
    """A JPEG that does not end where its picture does."""
    picture: Image.Image | None = None
    """The opened image, not decoded yet; only when the file was read whole."""


def read_header(path: str, findings: list[DataFinding], *, whole: bool = False, channels: int = 3) -> Header:
    """Read the header of an image and judge what it shows without decoding.

    Args:
        path: The image.
        findings: Takes what is wrong.
        whole: Read the whole file, for an image that is decoded next.
        channels: What the description asks for.

    Returns:
        The header; its size is 0 when the image cannot be used.
    """
    header = Header()
    try:
        with open_regular(path, most=MOST_BYTES, links=True) as file:
            size = os.fstat(file.fileno()).st_size
            if not size:
                findings.append(found("image-empty", path, "0 bytes; an image has more", image=path))
                return header
            file.seek(-min(TAIL, size), os.SEEK_END)
            tail = file.read()
            header.key = size << 32 | zlib.crc32(tail)
            file.seek(0)
            _read(io.BytesIO(file.read()) if whole else file, path, size, tail, header, findings, channels)
            header.picture = header.picture if whole else None
    except BROKEN as error:
        rule, message = "image-unreadable", f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if _is_float_tiff(path):
            rule, message = "image-float", "holds floating-point numbers; expected: 8 bits"
        severity = Severity.WARNING if os.path.basename(path).startswith("._") else None  # macOS' notes on a file
        findings.append(found(rule, path, message, image=path, severity=severity))
        header.width = 0
    return header


def _read(
    file: BinaryIO, path: str, size: int, tail: bytes, header: Header, findings: list[DataFinding], channels: int
) -> None:
    image = header.picture = open_image(file)
    header.format, header.mode = image.format or "", image.mode
    width, height = image.size
    bits = 8
    if header.format in {"JPEG", "MPO"}:
        metadata = sum(len(value) for value in image.info.values() if isinstance(value, bytes))
        header.trailing = tail[-2:] != b"\xff\xd9" and header.format == "JPEG"  # an MPO may end with another picture
        header.suspect = header.trailing or size <= _FLAT_JPEG * width * height + metadata + 1024
    elif header.format == "PNG":
        file.seek(0)
        content = file.read()
        bits = content[24]
        header.suspect = _png_is_flat(content)
        if fault := _png_fault(content):
            findings.append(found("image-truncated", path, fault, image=path))
            header.damaged = True
    else:
        header.suspect = True  # rare formats are decoded
        if header.format == "TIFF":
            bits = max(image.tag_v2.get(258, (8,)))  # pyright: ignore[reportAttributeAccessIssue]
    findings += _judge(image, path, bits, channels)
    header.damaged |= width * height > REFUSED_AREA
    if header.format in ENDINGS:
        turned = _orientation(image) in {5, 6, 7, 8}
        header.width, header.height = (height, width) if turned else (width, height)


def _judge(image: Image.Image, path: str, bits: int, channels: int) -> Iterator[DataFinding]:
    kind, mode, (width, height) = image.format or "", image.mode, image.size
    ending = path.rpartition(".")[2].lower()
    if kind not in ENDINGS:
        yield found("image-format", path, f"is {kind}; allowed: {', '.join(ENDINGS)}", image=path)
    elif ending not in ENDINGS[kind]:
        yield found("image-extension", path, f"ends in .{ending} and is {kind} (.{ENDINGS[kind][0]})", image=path)
    turn = _orientation(image)
    if turn in range(2, 9) and channels in (1, 3):  # with others the reader lets the pixels lie
        yield found("image-rotated", path, f"EXIF orientation is {turn}; upright is 1", image=path)
    if mode == "CMYK":
        yield found("image-cmyk", path, "is CMYK; expected: RGB or grey", image=path)
    elif mode == "F" and channels in (1, 3):  # with others the bands are looked at
        yield found("image-float", path, "holds floating-point numbers; expected: 8 bits", image=path)
    elif 8 < bits <= 16:
        yield found("image-16bit", path, f"has {bits} bits for a channel; expected: 8", image=path)
    if mode in _GREY and channels == 3:
        yield found("image-grey", path, f"has one channel (mode {mode}); expected: 3", image=path)
    elif channels in (1, 3) and (mode in {"RGBA", "LA", "PA"} or "transparency" in image.info):
        yield found("image-alpha", path, f"has an alpha channel (mode {mode}); expected: RGB", image=path)
    if min(width, height) < SMALLEST_SIDE:
        yield found("image-small", path, f"{width} x {height} pixels; allowed: {SMALLEST_SIDE} or more", image=path)
    elif max(width, height) > LARGEST_SIDE or width * height > LARGEST_AREA:
        limit = f"{LARGEST_SIDE} a side and {LARGEST_AREA // 10**6} million in all"
        severity = Severity.ERROR if width * height > REFUSED_AREA else None  # Ultralytics leaves it out
        message = f"{width} x {height} pixels; expected: at most {limit}"
        yield found("image-huge", path, message, image=path, severity=severity)
    if max(width, height) > LARGEST_ASPECT * min(width, height):
        aspect = max(width, height) / max(min(width, height), 1)
        yield found(
            "image-aspect", path, f"sides are {aspect:.1f} : 1; expected: {LARGEST_ASPECT:g} : 1 at most", image=path
        )


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation where Ultralytics finds one; asking a PNG in any other way would decode it."""
    if image.format == "TIFF":
        return image.tag_v2.get(_ORIENTATION, 1)  # pyright: ignore[reportAttributeAccessIssue]
    if "exif" not in image.info:
        return 1
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (ValueError, SyntaxError, OSError, struct.error):  # EXIF that cannot be read turns nothing
        return 1


def _png_fault(content: bytes) -> str:
    """Return what is wrong with the chunks of a PNG, or nothing."""
    view, at = memoryview(content), 8
    while at + 12 <= len(content):
        length = int.from_bytes(view[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(content):
            break
        if view[at + 4 : at + 8] == b"IEND":
            return ""  # nobody looks at its checksum
        if zlib.crc32(view[at + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            return f"the checksum of a chunk is wrong, at byte {at} of {len(content)}"
        at = end + 4
    return f"ends at byte {len(content)}, inside a chunk or without IEND"


def _png_is_flat(content: bytes) -> bool:
    """Say whether a PNG may be of one colour: whether its first row, after the first pixel, repeats one pixel.

    In a row of one colour that holds for each of the five ways in which PNG filters rows.
    """
    width, bits, kind, interlaced = int.from_bytes(content[16:20], "big"), content[24], content[25], content[28]
    pixel = max(bits * _PNG_CHANNELS.get(kind, 1) // 8, 1)
    length = min(-(-width * bits * _PNG_CHANNELS.get(kind, 1) // 8) + 1, _PROBE)
    at = content.find(b"IDAT") + 4
    if interlaced or at < 4:
        return True
    try:
        row = zlib.decompressobj().decompress(content[at : at + _PROBE], length)
    except zlib.error:
        return True
    row = row if bits >= 8 else row[:-1]  # its last byte may hold bits that belong to no pixel
    return row[1 + pixel : -pixel] == row[1 + 2 * pixel :]


def _is_float_tiff(path: str) -> bool:
    """Say whether a file is a TIFF of several floating-point channels, which Pillow does not know."""
    if path.rpartition(".")[2].lower() not in {"tif", "tiff"}:
        return False
    import cv2

    image = cv2.imread(path, cv2.IMREAD_UNCHANGED)
    return image is not None and image.dtype.kind == "f"
