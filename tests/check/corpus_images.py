"""Odd image files, as they come from cameras, scanners, converters and broken copies, each with the pixels that are meant."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from check.corpus_formats import (
    bgr,
    bmp_top_down,
    by_opencv,
    grey,
    header_png,
    paletted,
    png_chunks,
    png_of,
    rgb,
    saved,
    tiff,
    turned,
)
from check.corpus_member import Group, Member
from check.planted import encoded, picture
from PIL import Image, ImageCms


def _jpegs() -> Iterator[Member]:
    def of(name: str, content: bytes, pixels: np.ndarray | None = None) -> Member:
        return Member(name, content, pixels=bgr(rgb(name) if pixels is None else pixels))

    def jpeg(name: str, **options: Any) -> bytes:
        return saved(rgb(name), "JPEG", **{"quality": 95, **options})

    yield of("plain.jpg", jpeg("plain.jpg"))
    yield of("progressive.jpg", jpeg("progressive.jpg", progressive=True))
    yield of("low quality.jpg", jpeg("low quality.jpg", quality=10))
    yield of("no subsampling.jpeg", jpeg("no subsampling.jpeg", subsampling=0))
    yield of("subsampled.JPG", jpeg("subsampled.JPG", subsampling=2))
    yield of("restarts.jpg", jpeg("restarts.jpg", restart_marker_blocks=1))
    yield of("comment.jpg", jpeg("comment.jpg", comment="a" * 300))
    yield of("grey.jpg", saved(grey("grey.jpg"), "JPEG", quality=95), grey("grey.jpg"))
    cmyk = Image.fromarray(rgb("cmyk.jpg")).convert("CMYK")
    yield of("cmyk.jpg", saved(cmyk, "JPEG", quality=95))
    yield of(
        "profile.jpg",
        jpeg("profile.jpg", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()),
    )
    for orientation in range(2, 9):
        name = f"turned {orientation}.jpg"
        yield of(name, *turned(rgb(name), "JPEG", orientation))
    for part in (0.98, 0.9, 0.5, 0.3):
        name = f"cut at {part}.jpg"
        content = jpeg(name)
        yield of(name, content[: int(len(content) * part)])
    yield of("cut in the header.jpg", jpeg("cut in the header.jpg")[:120])
    yield of("two bytes.jpg", b"\xff\xd8")
    yield of("no end marker.jpg", jpeg("no end marker.jpg")[:-2])
    yield of("half an end marker.jpg", jpeg("half an end marker.jpg")[:-1])
    yield of("newline behind.jpg", jpeg("newline behind.jpg") + b"\r\n")
    yield of("zeros behind.jpg", jpeg("zeros behind.jpg") + b"\0" * 64)
    hole = bytearray(jpeg("overwritten.jpg"))
    hole[len(hole) // 2 : len(hole) // 2 + 200] = b"\0" * 200
    yield Member("overwritten.jpg", bytes(hole), level="", why="the decoder goes on behind the hole without a word")
    mpo = [Image.fromarray(rgb("two views.mpo")), Image.fromarray(rgb("second view"))]
    yield of("two views.mpo", saved(mpo[0], "MPO", save_all=True, append_images=mpo[1:], quality=95))
    yield of(
        "mpo named.jpg",
        saved(Image.fromarray(rgb("mpo named.jpg")), "MPO", save_all=True, append_images=mpo[1:], quality=95),
    )
    yield of("thumbnail.jpg", jpeg("thumbnail.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"))


def _wrong_endings() -> Iterator[Member]:
    kinds = {
        "png": "PNG",
        "webp": "WEBP",
        "gif": "GIF",
        "bmp": "BMP",
        "tiff": "TIFF",
        "ppm": "PPM",
        "jpeg2000": "JPEG2000",
    }
    for kind, format_ in kinds.items():
        name = f"holds {kind}.jpg"
        options = {"lossless": True} if kind == "webp" else {}
        yield Member(name, saved(rgb(name), format_, **options), pixels=bgr(rgb(name)))
    for kind, ending in (
        ("JPEG", "png"),
        ("JPEG", "tif"),
        ("PNG", "bmp"),
        ("PNG", "webp"),
        ("TIFF", "dng"),
        ("PNG", "heic"),
    ):
        name = f"{kind.lower()} in.{ending}"
        yield Member(name, saved(rgb(name), kind, **({"quality": 95} if kind == "JPEG" else {})), pixels=bgr(rgb(name)))
    for kind in ("ICO", "TGA", "PCX", "GIF", "DDS", "SGI"):
        name = f"holds {kind.lower()}.png"
        yield Member(name, saved(Image.fromarray(rgb(name)), kind, **({"sizes": [(96, 64)]} if kind == "ICO" else {})))
    yield Member("empty.jpg", b"")
    yield Member("one byte.png", b"\x89")
    yield Member("a page.jpg", b"<!doctype html><html><body>404 Not Found</body></html>")
    yield Member("git lfs.jpg", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    yield Member("text.png", b"hello")
    yield Member("zeros.png", b"\0" * 4096)
    yield Member("svg.png", b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>')


def _pngs() -> Iterator[Member]:
    def of(name: str, content: bytes, pixels: np.ndarray | None = None) -> Member:
        return Member(name, content, pixels=bgr(rgb(name) if pixels is None else pixels))

    yield of("plain.png", encoded(rgb("plain.png")))
    yield of("grey.png", encoded(grey("grey.png")), grey("grey.png"))
    yield of(
        "grey 16 bit.png", by_opencv(grey("grey 16 bit.png").astype(np.uint16) * 257, ".png"), grey("grey 16 bit.png")
    )
    wide = rgb("colour 16 bit.png")
    yield of("colour 16 bit.png", by_opencv(wide[..., ::-1].astype(np.uint16) * 257, ".png"))
    low = np.minimum(grey("12 of 16 bits.png").astype(np.uint16) * 16, 4095)
    yield Member(
        "12 of 16 bits.png", by_opencv(low, ".png"), pixels=bgr(grey("12 of 16 bits.png"))
    )  # what is left of a sensor's 12 bits is nearly black
    clear = np.dstack([rgb("alpha.png"), np.full((64, 96), 128, np.uint8)])
    yield of("alpha.png", encoded(clear))
    yield of(
        "grey alpha.png", saved(Image.fromarray(grey("grey alpha.png")).convert("LA"), "PNG"), grey("grey alpha.png")
    )
    palette = paletted("palette.png")
    yield of("palette.png", saved(palette, "PNG"), np.asarray(palette.convert("RGB")))
    see = paletted("palette clear.png")
    yield of("palette clear.png", saved(see, "PNG", transparency=3), np.asarray(see.convert("RGB")))
    many = paletted("palette alphas.png")
    yield of(
        "palette alphas.png", saved(many, "PNG", transparency=bytes(range(0, 256, 8))), np.asarray(many.convert("RGB"))
    )
    key = rgb("colour key.png")
    yield of("colour key.png", saved(Image.fromarray(key), "PNG", transparency=tuple(int(v) for v in key[0, 0])))
    bit = Image.fromarray(grey("one bit.png")).convert("1")
    yield of("one bit.png", saved(bit, "PNG"), np.asarray(bit.convert("L")))
    whole = encoded(rgb("cut"))
    for part in (0.99, 0.5, 0.1):
        yield of(f"cut at {part}.png", whole[: int(len(whole) * part)], rgb("cut"))
    yield of("cut in the header.png", whole[:20])
    chunks = list(png_chunks(encoded(rgb("no end.png"))))
    yield of("no end.png", png_of(chunks[:-1]))
    for kind in (b"IHDR", b"IDAT", b"IEND"):
        name = f"bad sum {kind.decode()}.png"
        yield of(name, png_of(list(png_chunks(encoded(rgb(name)))), kind))
    name = "bad sum of a note.png"
    parts = list(png_chunks(encoded(rgb(name))))
    yield of(name, png_of([parts[0], (b"tEXt", b"Author\0me"), *parts[1:]], b"tEXt"))
    yield of("garbage behind.png", encoded(rgb("garbage behind.png")) + b"garbage" * 9)
    name = "data cut short.png"
    parts = list(png_chunks(encoded(rgb(name))))
    yield of(name, png_of([(k, d[: len(d) // 2] if k == b"IDAT" else d) for k, d in parts]))
    yield of("turned 6.png", *turned(rgb("turned 6.png"), "PNG", 6))
    frames = [Image.fromarray(rgb("animated.png")), Image.fromarray(rgb("second frame"))]
    yield of("animated.png", saved(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    yield of("huge header.png", header_png(60000, 60000))
    yield of("over the limit.png", header_png(40000, 5000))
    for width, height in ((9, 64), (64, 9), (1, 64), (1, 1), (10, 10), (600, 10)):
        name = f"{width} by {height}.png"
        yield of(name, encoded(rgb(name, width, height)), rgb(name, width, height))
    yield of("all black.png", encoded(np.zeros((64, 96, 3), np.uint8)), np.zeros((64, 96, 3), np.uint8))


def _bitmaps() -> Iterator[Member]:
    def of(name: str, content: bytes, pixels: np.ndarray | None = None) -> Member:
        return Member(name, content, pixels=bgr(rgb(name) if pixels is None else pixels))

    yield of("plain.bmp", encoded(rgb("plain.bmp"), "BMP"))
    yield of("grey.bmp", encoded(grey("grey.bmp"), "BMP"), grey("grey.bmp"))
    yield of("palette.bmp", saved(paletted("palette.bmp"), "BMP"), np.asarray(paletted("palette.bmp").convert("RGB")))
    bit = Image.fromarray(grey("one bit.bmp")).convert("1")
    yield of("one bit.bmp", saved(bit, "BMP"), np.asarray(bit.convert("L")))
    yield of("alpha.bmp", encoded(np.dstack([rgb("alpha.bmp"), np.full((64, 96), 200, np.uint8)]), "BMP"))
    yield of("top down.bmp", bmp_top_down(rgb("top down.bmp")))
    yield of("cut at half.bmp", encoded(rgb("cut at half.bmp"), "BMP")[:9000])
    yield of("lossy.webp", saved(rgb("lossy.webp"), "WEBP", quality=95))
    yield of("lossless.webp", saved(rgb("lossless.webp"), "WEBP", lossless=True))
    yield of(
        "alpha.webp", saved(np.dstack([rgb("alpha.webp"), np.full((64, 96), 128, np.uint8)]), "WEBP", lossless=True)
    )
    yield of("turned 6.webp", *turned(rgb("turned 6.webp"), "WEBP", 6))
    yield of("turned 3.webp", *turned(rgb("turned 3.webp"), "WEBP", 3))
    frames = [Image.fromarray(rgb("animated.webp")), Image.fromarray(rgb("second frame of webp"))]
    yield of("animated.webp", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True))
    content = saved(rgb("cut.webp"), "WEBP", quality=95)
    yield of("cut.webp", content[: len(content) // 2])
    yield of("plain.avif", saved(rgb("plain.avif"), "AVIF", quality=95))
    yield of("avif named.jpg", saved(rgb("avif named.jpg"), "AVIF", quality=95))
    content = saved(rgb("cut.avif"), "AVIF", quality=95)
    yield of("cut.avif", content[: len(content) // 2])
    yield of("turned 6.avif", *turned(rgb("turned 6.avif"), "AVIF", 6))
    yield of("plain.jp2", saved(rgb("plain.jp2"), "JPEG2000"))
    yield of("grey.jp2", saved(grey("grey.jp2"), "JPEG2000"), grey("grey.jp2"))


def _tiffs() -> Iterator[Member]:
    def of(name: str, content: bytes, pixels: np.ndarray | None = None) -> Member:
        return Member(name, content, pixels=bgr(rgb(name) if pixels is None else pixels))

    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        name = f"{compression}.tif"
        yield of(name, saved(rgb(name), "TIFF", compression=None if compression == "raw" else compression))
    yield of("grey.tiff", encoded(grey("grey.tiff"), "TIFF"), grey("grey.tiff"))
    yield of(
        "grey 16 bit.tif", by_opencv(grey("grey 16 bit.tif").astype(np.uint16) * 257, ".tiff"), grey("grey 16 bit.tif")
    )
    yield of("colour 16 bit.tif", by_opencv(rgb("colour 16 bit.tif")[..., ::-1].astype(np.uint16) * 257, ".tiff"))
    for name, kind in (("int32.tif", np.int32), ("float.tif", np.float32)):
        yield of(name, saved(Image.fromarray(grey(name).astype(kind)), "TIFF"), grey(name))
    for kind in (np.uint32, np.int16, np.int8, np.float64, np.float16):
        name = f"{np.dtype(kind).name}.tif"
        yield of(name, tiff(grey(name).astype(kind)), grey(name))
    unit = grey("float from 0 to 1.tif")
    yield of("float from 0 to 1.tif", tiff(unit.astype(np.float32) / 255), unit)
    holes = grey("float with nan.tif").astype(np.float32)
    holes[:20] = np.nan
    yield of("float with nan.tif", tiff(holes), grey("float with nan.tif"))
    yield of("colour float.tif", tiff(rgb("colour float.tif").astype(np.float32), photometric=2))
    lab: Any = ImageCms.applyTransform(
        Image.fromarray(rgb("lab.tif")),
        ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"),
    )
    yield of("lab.tif", saved(lab, "TIFF"))
    yield of("cmyk.tif", saved(Image.fromarray(rgb("cmyk.tif")).convert("CMYK"), "TIFF"))
    yield of("ycbcr.tif", saved(Image.fromarray(rgb("ycbcr.tif")).convert("YCbCr"), "TIFF"))
    yield of("alpha.tif", encoded(np.dstack([rgb("alpha.tif"), np.full((64, 96), 200, np.uint8)]), "TIFF"))
    yield of(
        "grey alpha.tif", saved(Image.fromarray(grey("grey alpha.tif")).convert("LA"), "TIFF"), grey("grey alpha.tif")
    )
    yield of("palette.tif", saved(paletted("palette.tif"), "TIFF"), np.asarray(paletted("palette.tif").convert("RGB")))
    bit = Image.fromarray(grey("one bit.tif")).convert("1")
    yield of("one bit.tif", saved(bit, "TIFF"), np.asarray(bit.convert("L")))
    yield of("fax.tif", saved(bit, "TIFF", compression="group4"), np.asarray(bit.convert("L")))
    white = grey("white is zero.tif")
    yield of("white is zero.tif", tiff(255 - white, photometric=0), white)
    yield of("pages grey.tif", tiff(*(grey(f"page {n}") for n in "ab")), grey("page a"))
    yield of("pages colour.tif", tiff(*(rgb(f"colour page {n}") for n in "ab"), photometric=2), rgb("colour page a"))
    yield of("pages of two sizes.tif", tiff(grey("page c"), grey("page c")[::2, ::2].copy()), grey("page c"))
    yield of("big endian.tif", tiff(rgb("big endian.tif"), photometric=2, order=">"))
    yield of("planes.tif", tiff(rgb("planes.tif"), photometric=2, planar=2))
    yield of("big tiff.tif", saved(rgb("big tiff.tif"), "TIFF", big_tiff=True))
    for bands in (2, 4, 5, 10):
        name = f"{bands} bands.tif"
        many = np.dstack([grey(f"{name} {n}") for n in range(bands)])
        yield Member(name, tiff(many), pixels=many[..., 2::-1].copy() if bands > 2 else None)
    for orientation in (3, 6):
        name = f"turned {orientation}.tif"
        yield of(name, *turned(rgb(name), "TIFF", orientation))
    content = saved(rgb("cut.tif"), "TIFF", compression="tiff_lzw")
    yield of("cut.tif", content[: len(content) // 2])
    raw = tiff(rgb("cut raw.tif"), photometric=2)
    yield of("cut raw.tif", raw[:5000])
    yield of("unknown compression.tif", tiff(rgb("unknown compression.tif"), photometric=2, compression=65000))


def _beside() -> Iterator[Member]:
    def array(pixels: np.ndarray, newer: bool = True) -> Callable[[Path, Path], None]:
        def plant(image: Path, _: Path) -> None:
            place = image.with_suffix(".npy")
            np.save(place, pixels)
            at = image.stat().st_mtime + (60 if newer else -60)
            os.utime(place, (at, at))

        return plant

    def of(name: str, plant: Callable[[Path, Path], Any]) -> Member:
        return Member(name, encoded(rgb(name)), pixels=bgr(rgb(name)), plant=plant)

    yield of("npy same.png", array(bgr(rgb("npy same.png"))))
    yield of("npy older.png", array(bgr(rgb("other")), newer=False))
    yield of("npy other.png", array(bgr(rgb("npy other"))))
    yield of("npy other shape.png", array(bgr(rgb("npy other shape", 64, 96))))
    yield of("npy half.png", array(cv2.resize(bgr(rgb("npy half.png")), (48, 32), interpolation=cv2.INTER_AREA)))
    yield of("npy grey.png", array(grey("npy grey.png")))
    yield of("npy alpha.png", array(np.zeros((64, 96, 4), np.uint8)))
    yield of("npy float.png", array(bgr(rgb("npy float.png")).astype(np.float32) / 255))
    yield of("npy 16 bit.png", array(bgr(rgb("npy 16 bit.png")).astype(np.uint16)))
    yield of("npy objects.png", lambda image, _: np.save(image.with_suffix(".npy"), np.array([{}]), allow_pickle=True))
    yield of("npy text.png", lambda image, _: image.with_suffix(".npy").write_text("nothing"))


def _names() -> Iterator[Member]:
    for name in (
        "two words.png", "größe.png", "e\u0301 apart.png", "日本.png", "😀.png", "[1].png", "(2).png", "a.b.c.png", "#3.png",
        "100%20.png", "it's.png", 'say "hi".png', "-dash.png", "image*.png", "q?.png", "trailing .png", "a" * 150 + ".png",
        "images.png", "labels.png", "dots...png", "UPPER.PNG", "back\\slash.png", os.fsdecode(b"latin\xe9.png"), "x.jpg.png",
    ):  # fmt: skip
        pixels = picture(zlib.crc32(os.fsencode(name)))
        yield Member(name, encoded(pixels), pixels=bgr(pixels))
    yield Member(".hidden.png", encoded(rgb(".hidden.png")), labels=None, objects=None)
    yield Member("._mac.png", b"\0\x05\x16\x07" + b"\0" * 60, labels=None, objects=None)
    yield Member(
        "movie.gif", saved(rgb("movie.gif"), "GIF"), level="info", why="an image with labels that is never read"
    )
    yield Member(
        "photo.jfif", saved(rgb("photo.jfif"), "JPEG"), level="info", why="an image with labels that is never read"
    )
    yield Member("no ending", encoded(rgb("no ending")), level="info", why="an image with labels that is never read")
    yield Member(
        "a folder.png", labels=None, plant=lambda image, _: image.mkdir(), objects=None, level="warning",
        why="it is taken for an image and left out; nothing is lost",
    )  # fmt: skip
    yield Member("broken link.png", plant=lambda image, _: image.symlink_to("nowhere.png"), objects=None)

    def link(image: Path, _: Path) -> None:
        real = image.parents[3] / "elsewhere.png"
        real.write_bytes(encoded(rgb("link.png")))
        image.symlink_to(real)

    yield Member("link.png", plant=link, pixels=bgr(rgb("link.png")))
    yield Member("link loop.png", plant=lambda image, _: image.symlink_to(image.name), objects=None)


def _grey_set() -> Iterator[Member]:
    def of(name: str, content: bytes, pixels: np.ndarray | None = None) -> Member:
        return Member(name, content, pixels=(grey(name) if pixels is None else pixels)[..., None])

    def of_colour(name: str, content: bytes) -> Member:
        return of(name, content, cv2.cvtColor(rgb(name), cv2.COLOR_RGB2GRAY))

    yield of("grey1.png", encoded(grey("grey1.png")))
    yield of("grey1.jpg", saved(grey("grey1.jpg"), "JPEG", quality=95))
    yield of_colour("colour1.png", encoded(rgb("colour1.png")))
    yield of_colour("colour1.jpg", saved(rgb("colour1.jpg"), "JPEG", quality=95))
    yield of_colour("alpha1.png", encoded(np.dstack([rgb("alpha1.png"), np.full((64, 96), 9, np.uint8)])))
    yield of("la1.png", saved(Image.fromarray(grey("la1.png")).convert("LA"), "PNG"))
    yield of("16 bit1.png", by_opencv(grey("16 bit1.png").astype(np.uint16) * 257, ".png"))
    yield of("16 bit1.tif", by_opencv(grey("16 bit1.tif").astype(np.uint16) * 257, ".tiff"))
    yield of("pages1.tif", tiff(grey("pages1.tif"), grey("page 1b")))
    yield of("float1.tif", tiff(grey("float1.tif").astype(np.float32)))
    yield of("int1.tif", tiff(grey("int1.tif").astype(np.int32)))
    yield of("10 bands1.tif", tiff(np.dstack([grey("10 bands1.tif")] * 10)))
    yield of("2 bands1.tif", tiff(np.dstack([grey("2 bands1.tif")] * 2)))
    yield of_colour("colour1.tif", encoded(rgb("colour1.tif"), "TIFF"))
    yield of_colour("colour1.avif", saved(rgb("colour1.avif"), "AVIF", quality=95))
    yield of_colour("turned1.jpg", saved(rgb("turned1.jpg"), "JPEG", quality=95))


def _four_channels() -> Iterator[Member]:
    def of(name: str, content: bytes, pixels: np.ndarray | None = None) -> Member:
        return Member(name, content, pixels=pixels)

    def four(name: str) -> np.ndarray:
        return np.dstack([rgb(name), grey(f"{name} alpha")])

    def bgra(name: str) -> np.ndarray:
        return np.ascontiguousarray(four(name)[..., [2, 1, 0, 3]])

    yield of("rgba4.png", encoded(four("rgba4.png")), bgra("rgba4.png"))
    yield of("rgba4.webp", saved(four("rgba4.webp"), "WEBP", lossless=True, exact=True), bgra("rgba4.webp"))
    yield of("rgba4.bmp", encoded(four("rgba4.bmp"), "BMP"), bgra("rgba4.bmp"))
    yield of("rgba4.tif", encoded(four("rgba4.tif"), "TIFF"), bgra("rgba4.tif"))
    yield of("rgba4 16.png", by_opencv(bgra("rgba4 16.png").astype(np.uint16) * 257, ".png"), bgra("rgba4 16.png"))
    bands = np.dstack([grey(f"bands4 {n}") for n in range(4)])
    yield of("bands4.tif", tiff(bands), bands)
    yield of("planes4.tif", tiff(bands, planar=2), bands)
    yield of("pages4.tif", tiff(*(np.ascontiguousarray(bands[..., n]) for n in range(4))), bands)
    yield of("pages3.tif", tiff(*(np.ascontiguousarray(bands[..., n]) for n in range(3))))
    yield of("pages5.tif", tiff(*(grey(f"pages5 {n}") for n in range(5))))
    yield of("pages4 16.tif", tiff(*(grey(f"pages4 16 {n}").astype(np.uint16) * 257 for n in range(4))))
    yield of("rgb4.jpg", saved(rgb("rgb4.jpg"), "JPEG"))
    yield of("rgb4.png", encoded(rgb("rgb4.png")))
    yield of("grey4.png", encoded(grey("grey4.png")))
    yield of("la4.png", saved(Image.fromarray(grey("la4.png")).convert("LA"), "PNG"))
    yield of("palette4.png", saved(paletted("palette4.png"), "PNG", transparency=3))
    yield of("opaque4.png", saved(paletted("opaque4.png"), "PNG"))
    yield of("cmyk4.jpg", saved(Image.fromarray(rgb("cmyk4.jpg")).convert("CMYK"), "JPEG", quality=95))
    yield of("cmyk4.tif", saved(Image.fromarray(rgb("cmyk4.tif")).convert("CMYK"), "TIFF"))
    yield of("rgba4.avif", saved(four("rgba4.avif"), "AVIF", quality=95))

    def array(image: Path, _: Path) -> None:
        np.save(image.with_suffix(".npy"), bgra("npy4"))
        os.utime(image.with_suffix(".npy"), (2e9, 2e9))

    yield Member("npy4.jpg", saved(rgb("npy4.jpg"), "JPEG"), plant=array)


def _ten_channels() -> Iterator[Member]:
    bands = np.dstack([grey(f"ten {n}") for n in range(10)])

    def pages(count: int, kind: Any = np.uint8, scale: int = 1) -> bytes:
        return tiff(*(grey(f"ten {kind} {n}").astype(kind) * kind(scale) for n in range(count)))

    yield Member("pages10.tif", tiff(*(np.ascontiguousarray(bands[..., n]) for n in range(10))), pixels=bands)
    yield Member("bands10.tif", tiff(bands), pixels=bands)
    yield Member("planes10.tif", tiff(bands, planar=2), pixels=bands)
    yield Member("pages10 16.tiff", pages(10, np.uint16, 257))
    yield Member("pages10 float.tif", pages(10, np.float32))
    yield Member(
        "pages10 float to 1.tif", tiff(*(bands[..., n].astype(np.float32) / 255 for n in range(10))), pixels=bands
    )
    yield Member("pages10 int32.tif", pages(10, np.int32))
    yield Member("pages10 int16.tif", pages(10, np.int16))
    yield Member("pages10 double.tif", pages(10, np.float64))
    yield Member("pages9.tif", pages(9))
    yield Member("pages11.tif", pages(11))
    yield Member("pages mixed.tif", tiff(*(grey(f"mixed {n}")[: 64 - n].copy() for n in range(10))))
    yield Member("pages cut.tif", pages(10)[: 64 * 96 * 5])
    yield Member("rgb10.png", encoded(rgb("rgb10.png")))
    yield Member("grey10.tif", tiff(grey("grey10.tif")))
    yield Member("pages10 named.png", pages(10))


def groups() -> Iterator[Group]:
    """Yield the data sets of odd images."""
    yield Group("jpegs", tuple(_jpegs()))
    yield Group("endings", tuple(_wrong_endings()))
    yield Group("pngs", tuple(_pngs()))
    yield Group("bitmaps", tuple(_bitmaps()))
    yield Group("tiffs", tuple(_tiffs()))
    yield Group("beside", tuple(_beside()))
    yield Group("names", tuple(_names()))
    yield Group("one channel", tuple(_grey_set()), description={"channels": 1})
    yield Group("four channels", tuple(_four_channels()), description={"channels": 4})
    yield Group("ten channels", tuple(_ten_channels()), description={"channels": 10})
