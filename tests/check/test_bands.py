"""Channels: what training gets of a file, judged against what the description asks for."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from check.planted import BOX, Planted, clean, encoded, found_in, picture
from PIL import Image

from yolo_stable.check import Severity, bands, check
from yolo_stable.check.bands import delivered
from yolo_stable.check.header import Header


def pages(channels: int, seed: int = 0) -> list[np.ndarray]:
    return [picture(100 * seed + channel)[..., 0] for channel in range(channels)]


def stack(channels: int, seed: int = 0) -> bytes:
    """Return a TIFF with a page for each channel."""
    okay, content = cv2.imencodemulti(".tiff", pages(channels, seed))
    assert okay
    return content.tobytes()


def tiff(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".tiff", pixels)[1].tobytes()


def pillow(mode: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(7)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


FILES = {
    "rgb.png": encoded(picture(1)),
    "grey.png": encoded(picture(2)[..., 0]),
    "alpha.png": pillow("RGBA", "PNG"),
    "grey and alpha.png": pillow("LA", "PNG"),
    "palette.png": pillow("P", "PNG"),
    "one bit.png": pillow("1", "PNG"),
    "deep.png": cv2.imencode(".png", picture(3).astype(np.uint16) * 256)[1].tobytes(),
    "deep and grey.png": cv2.imencode(".png", picture(3)[..., 0].astype(np.uint16) * 256)[1].tobytes(),
    "rgb.jpg": encoded(picture(4), "JPEG"),
    "grey.jpg": encoded(picture(5)[..., 0], "JPEG"),
    "cmyk.jpg": pillow("CMYK", "JPEG"),
    "rgb.bmp": encoded(picture(6), "BMP"),
    "rgb.webp": encoded(picture(6), "WEBP"),
    "rgb.tif": tiff(picture(7)),
    "grey.tif": tiff(picture(8)[..., 0]),
    "alpha.tif": pillow("RGBA", "TIFF"),
    "cmyk.tif": pillow("CMYK", "TIFF"),
    "lab.tif": pillow("LAB", "TIFF"),
    "grey and alpha.tif": pillow("LA", "TIFF"),
    "one bit.tif": pillow("1", "TIFF"),
    "palette.tif": pillow("P", "TIFF"),
    "deep.tif": tiff(picture(9).astype(np.uint16) * 256),
    "int32.tif": pillow("I", "TIFF"),
    "float.tif": pillow("F", "TIFF"),
    "floats.tiff": tiff(picture(10).astype(np.float32)),
    "two pages.tif": stack(2),
    "ten pages.tiff": stack(10),
    "other pages.tif": cv2.imencodemulti(".tif", [picture(1)[..., 0], picture(2, 40, 40)[..., 0]])[1].tobytes(),
    "ten pages.png": stack(10),
    "rgb.TIF": tiff(picture(11)),
}


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 10])
@pytest.mark.parametrize("name", FILES)
def test_files_are_read_as_ultralytics_reads_them(tmp_path: Path, name: str, channels: int) -> None:
    from ultralytics.utils.patches import imread

    path = tmp_path / name
    path.write_bytes(FILES[name])
    flag = {1: cv2.IMREAD_GRAYSCALE, 3: cv2.IMREAD_COLOR}.get(channels, cv2.IMREAD_UNCHANGED)
    theirs, ours = imread(str(path), flag), delivered(str(path), channels)
    assert (ours is None) == (theirs is None)
    if ours is not None and theirs is not None:
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")


@pytest.mark.parametrize("near", [True, False])
@pytest.mark.parametrize(
    ("channels", "ending", "file"),
    [
        (1, "png", lambda seed: encoded(picture(seed)[..., 0])),
        (1, "jpg", lambda seed: encoded(picture(seed), "JPEG")),
        (2, "tiff", lambda seed: stack(2, seed)),
        (4, "png", lambda seed: encoded(np.dstack([picture(seed), picture(seed + 50)[..., 0]]))),
        (4, "tiff", lambda seed: stack(4, seed)),
        (10, "tiff", lambda seed: stack(10, seed)),
    ],
)
def test_files_that_are_as_declared_are_clean(
    tmp_path: Path, channels: int, ending: str, file: object, near: bool
) -> None:
    data = Planted(tmp_path, channels=channels)
    for seed in range(1, 7):
        content = file(seed)  # pyright: ignore[reportCallIssue]
        data.add(f"{seed}.{ending}", content, [BOX, "1 0.3 0.3 0.2 0.2"], split="train" if seed < 5 else "val")
    assert found_in(check(data.write(), near=near)) == set()


def test_a_file_with_another_number_of_channels_is_an_error(tmp_path: Path) -> None:
    data = clean(tmp_path, channels=10)
    for path in (tmp_path / "images").rglob("*.png"):
        path.with_suffix(".tiff").write_bytes(stack(10, int(path.stem[-1]) + (9 if "val" in path.stem else 0)))
        path.unlink()
    data.image("image-channels", "four.tiff", stack(4, 50))
    data.image("image-channels", "three.jpg", encoded(picture(51), "JPEG"))
    data.image("image-channels", "one.png", encoded(picture(52)[..., 0]))
    report = check(data.root)
    assert (found_in(report), report.exit_code) == (data.expected, 1)


def test_a_first_band_without_content_is_not_an_image_without(tmp_path: Path) -> None:
    data = Planted(tmp_path, channels=4)
    for seed in range(1, 7):
        data.add(f"{seed}.tiff", stack(4, seed), [BOX, "1 0.3 0.3 0.2 0.2"], split="train" if seed < 5 else "val")
    empty = [np.zeros((64, 96), np.uint8)]
    data.add("first.tiff", cv2.imencodemulti(".tiff", empty + pages(3, 9))[1].tobytes())
    data.image("image-constant", "all.tiff", cv2.imencodemulti(".tiff", empty * 4)[1].tobytes())
    data.write()
    assert found_in(check(data.root)) == data.expected


def test_bands_that_look_alike_are_near_duplicates_only_when_all_do(tmp_path: Path) -> None:
    data = Planted(tmp_path, channels=4)
    for seed in range(1, 7):
        content = cv2.imencodemulti(".tiff", [picture(0)[..., 0], *pages(3, seed)])[1].tobytes()
        data.add(f"{seed}.tiff", content, [BOX, "1 0.3 0.3 0.2 0.2"], split="train" if seed < 5 else "val")
    assert found_in(check(data.write())) == set()


def test_an_array_that_is_read_instead_speaks_for_its_image(tmp_path: Path) -> None:
    data = Planted(tmp_path, channels=10)
    for seed in range(1, 7):
        image = data.add(f"{seed}", labels=[BOX, "1 0.3 0.3 0.2 0.2"], split="train" if seed < 5 else "val")
        np.save(image.with_suffix(".npy"), np.dstack(pages(10, seed)))
    assert found_in(check(data.write(), sample=0)) == set()


@pytest.mark.parametrize("value", ["three", "0", "-1", "2.5", "true", "", "[3]"])
def test_a_number_of_channels_that_is_none_is_an_error(tmp_path: Path, value: str) -> None:
    path = clean(tmp_path).root / "data.yaml"
    path.write_text(f"{path.read_text()}channels: {value}\n")
    assert [(f.rule.id, f.line) for f in check(path, sample=0).findings] == [("yaml-key", 6)]


def test_what_ultralytics_cannot_read_is_an_error_and_no_wide_image(tmp_path: Path) -> None:
    data = clean(tmp_path)
    data.image("image-unreadable", "int32.tif", FILES["int32.tif"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = check(data.root, sample=0)
    wide = [f.severity for f in report.findings if f.rule.id != "image-grey"]
    assert wide == [Severity.ERROR]


def test_what_the_reader_of_ultralytics_makes_nothing_of_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bands, "delivered", lambda path, channels: None)
    header, findings = Header(width=96, height=64), []
    assert bands.check_bands("a.tif", header, 3, findings) is None
    assert header.damaged
    assert [finding.rule.id for finding in findings] == ["image-unreadable"]
