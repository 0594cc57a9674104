"""What is known of an image before it is decoded."""

from __future__ import annotations

import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from check.planted import encoded, picture

from yolo_stable.check.finding import DataFinding
from yolo_stable.check.header import Header, read_header


def header_of(path: Path, content: bytes) -> tuple[Header, list[DataFinding]]:
    path.write_bytes(content)
    findings: list[DataFinding] = []
    return read_header(str(path), findings), findings


@pytest.mark.parametrize("strategy", [zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("colour", [(0, 0, 0), (90, 90, 90), (10, 200, 255)])
def test_one_colour_is_suspicious_however_a_png_was_packed(
    tmp_path: Path, strategy: int, level: int, colour: tuple[int, int, int]
) -> None:
    flat = np.full((40, 60, 3), colour, np.uint8)
    packed = cv2.imencode(".png", flat, [cv2.IMWRITE_PNG_COMPRESSION, level, cv2.IMWRITE_PNG_STRATEGY, strategy])[1]
    header, findings = header_of(tmp_path / "a.png", packed.tobytes())
    assert (header.suspect, findings) == (True, [])


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_one_colour_is_suspicious_in_every_mode_of_png(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    path = tmp_path / "a.png"
    Image.fromarray(np.full((40, 61, 3), 255, np.uint8)).convert(mode).save(path)
    assert read_header(str(path), []).suspect


@pytest.mark.parametrize("quality", [30, 75, 95, 100])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"optimize": True}])
def test_one_colour_is_suspicious_however_a_jpeg_was_packed(
    tmp_path: Path, quality: int, options: dict[str, int]
) -> None:
    for side in (16, 640, 1500):
        flat = np.full((side, side, 3), (200, 30, 77), np.uint8)
        header, _ = header_of(tmp_path / "a.jpg", encoded(flat, "JPEG", quality=quality, **options))
        assert header.suspect


def test_an_ordinary_image_is_not_decoded(tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    for kind, name in (("PNG", "a.png"), ("JPEG", "a.jpg")):
        header, findings = header_of(tmp_path / name, encoded(noisy, kind))
        assert (header.suspect, findings, (header.width, header.height)) == (False, [], (300, 200))


def test_a_turned_image_has_its_upright_size(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[274] = 8
    for kind, name in (("PNG", "a.png"), ("JPEG", "a.jpg")):
        header, findings = header_of(tmp_path / name, encoded(picture(1), kind, exif=exif.tobytes()))
        assert (header.width, header.height) == (64, 96)
        assert [finding.rule.id for finding in findings] == ["image-rotated"]


def test_equal_files_have_equal_keys(tmp_path: Path) -> None:
    one, _ = header_of(tmp_path / "a.png", encoded(picture(1)))
    other, _ = header_of(tmp_path / "b.png", encoded(picture(1)))
    third, _ = header_of(tmp_path / "c.png", encoded(picture(2)))
    assert one.key == other.key != third.key


def test_an_image_that_is_a_link_is_read_as_the_file_that_it_leads_to(tmp_path: Path) -> None:
    file, link = tmp_path / "a.png", tmp_path / "b.png"
    file.write_bytes(encoded(picture(1)))
    link.symlink_to(file)
    findings: list[DataFinding] = []
    one, other = (read_header(str(path), findings, whole=True, channels=3) for path in (file, link))
    assert findings == []
    assert (other.width, other.height, other.key) == (one.width, one.height, one.key) == (96, 64, one.key)


@pytest.mark.parametrize("side", [12, 24, 200])
def test_a_small_picture_is_not_taken_for_one_colour(tmp_path: Path, side: int) -> None:
    noisy = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    assert not header_of(tmp_path / "a.png", encoded(noisy))[0].suspect
