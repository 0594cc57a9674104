"""Image files of every make, written byte by byte where no library writes them."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
from check.planted import encoded, picture
from PIL import Image, ImageOps


def rgb(name: str, width: int = 96, height: int = 64) -> np.ndarray:
    """Return a picture that is like no other name's: ``(height, width, 3)`` uint8, RGB."""
    return picture(zlib.crc32(name.encode()), width, height)


def grey(name: str) -> np.ndarray:
    return np.ascontiguousarray(rgb(name)[..., 0])


def bgr(pixels: np.ndarray) -> np.ndarray:
    """Return what the loader makes of RGB or grey pixels, in three channels."""
    if pixels.ndim == 2:
        return np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., 2::-1])


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, kind, **options)
    return buffer.getvalue()


def by_opencv(pixels: np.ndarray, ending: str) -> bytes:
    return cv2.imencode(ending, pixels)[1].tobytes()


def turned(pixels: np.ndarray, kind: str, orientation: int) -> tuple[bytes, np.ndarray]:
    """Return a file whose EXIF data turn it, and the upright pixels."""
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    content = saved(pixels, kind, exif=exif, **options)
    with Image.open(io.BytesIO(content)) as image:
        return content, np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def tiff(
    *pages: np.ndarray, photometric: int = 1, planar: int = 1, order: Literal["<", ">"] = "<", compression: int = 1
) -> bytes:
    """Return a plain TIFF of pages ``(height, width)`` or ``(height, width, channels)``, each one strip (one a channel)."""
    out = bytearray((b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 0))
    link = 4
    for page in pages:
        bands = page[..., None] if page.ndim == 2 else page
        height, width, samples = bands.shape
        kind = {"u": 1, "i": 2, "f": 3}[bands.dtype.kind]
        strips = [bands] if planar == 1 else [bands[..., n] for n in range(samples)]
        offsets, lengths = [], []
        for strip in strips:
            raw = strip.astype(strip.dtype.newbyteorder(order)).tobytes()
            offsets.append(len(out))
            lengths.append(len(raw))
            out += raw
        out += b"\0" * (len(out) % 2)
        colors = 3 if photometric == 2 else 4 if photometric == 5 else 1
        tags: list[tuple[int, int, list[int]]] = [
            (256, 4, [width]), (257, 4, [height]), (258, 3, [bands.dtype.itemsize * 8] * samples), (259, 3, [compression]),
            (262, 3, [photometric]), (273, 4, offsets), (277, 3, [samples]), (278, 4, [height]), (279, 4, lengths),
            (284, 3, [planar]), (338, 3, [0] * (samples - colors)), (339, 3, [kind] * samples),
        ]  # fmt: skip
        entries = []
        for tag, size, values in tags:
            if not values:
                continue
            data = struct.pack(order + {3: "H", 4: "I"}[size] * len(values), *values)
            if len(data) > 4:
                place = struct.pack(order + "I", len(out))
                out += data + b"\0" * (len(data) % 2)
            else:
                place = data.ljust(4, b"\0")
            entries.append(struct.pack(order + "HHI", tag, size, len(values)) + place)
        out[link : link + 4] = struct.pack(order + "I", len(out))
        out += struct.pack(order + "H", len(entries)) + b"".join(entries)
        link = len(out)
        out += b"\0\0\0\0"
    return bytes(out)


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 8
    while at < len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        yield content[at + 4 : at + 8], content[at + 8 : at + 8 + length]
        at += 12 + length


def png_of(chunks: list[tuple[bytes, bytes]], broken: bytes = b"") -> bytes:
    """Return a PNG of chunks; the check sum of the kind ``broken`` is wrong."""
    out = b"\x89PNG\r\n\x1a\n"
    for kind, data in chunks:
        crc = zlib.crc32(kind + data) ^ (kind == broken)
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
    return out


def header_png(width: int, height: int) -> bytes:
    """Return a PNG that says it is huge and holds next to nothing."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return png_of([(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")])


def bmp_top_down(pixels: np.ndarray) -> bytes:
    content = bytearray(encoded(np.ascontiguousarray(pixels[::-1]), "BMP"))
    content[22:26] = struct.pack("<i", -pixels.shape[0])
    return bytes(content)


def paletted(name: str) -> Image.Image:
    return Image.fromarray(rgb(name)).quantize(32)
