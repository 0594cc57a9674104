"""The page: whole in one file, and harmless whatever files are called."""

from __future__ import annotations

import base64
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest
from check.planted import BOX, Planted, clean, encoded, picture, plant_images, plant_labels
from PIL import Image

from yolo_stable.check import check
from yolo_stable.check.page import SIDE, _outline, page_of, thumbnail

EVIL = "<script>alert(1)</script>&\"'.png"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"}]
        self.ids += [value or "" for name, value in attrs if name == "id"]


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    data = clean(tmp_path_factory.mktemp("page"))
    plant_images(data)
    plant_labels(data)
    return data


def test_the_page_needs_nothing_else_and_its_links_lead_somewhere(spoilt: Planted) -> None:
    report = check(spoilt.root, near=False, sample=0)
    text = page_of(report)
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.tags
    assert {link.split(",")[0] for link in tags.links if not link.startswith("#")} == {
        "data:",
        "data:image/jpeg;base64",
    }
    assert {link[1:] for link in tags.links if link.startswith("#")} <= set(tags.ids)
    assert not re.search(r"https?://", text)
    assert report.verdict in text
    for rule in {finding.rule for finding in report.findings}:
        assert rule.id in text


@pytest.mark.skipif(os.name == "nt", reason="Windows allows no such file names")
def test_names_of_files_do_no_harm(tmp_path: Path) -> None:
    data = clean(tmp_path, names=["<b>bold</b>", "b"])
    folder = data.root / "images/train"
    name = EVIL.replace("/", "")
    (folder / "clean-train-0.png").rename(folder / name)
    text = page_of(check(data.root, sample=0))
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;script&gt;" in text


def test_a_thumbnail_shows_the_image_with_the_place_outlined(tmp_path: Path) -> None:
    data = clean(tmp_path)
    data.line("box-over-edge", BOX, "1 0.8 0.5 0.5 0.4")
    finding = check(data.root, near=False, sample=0).findings[0]
    image = Image.open(io.BytesIO(base64.b64decode(thumbnail(finding)))).convert("RGB")
    assert max(image.size) <= SIDE
    red, green, blue = np.moveaxis(np.asarray(image), 2, 0)
    assert ((red > 180) & (green < 90) & (blue < 90)).sum() > 20


def test_a_thumbnail_of_16_bits_is_as_bright_as_the_image(tmp_path: Path) -> None:
    data = clean(tmp_path)
    grey = picture(77)[..., 1]
    deep = data.add("deep.png", cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes())
    finding = next(f for f in check(data.root, near=False, sample=0).findings if f.image == str(deep))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(thumbnail(finding)))).convert("L")).astype(float)
    assert abs(shown.mean() - grey.mean()) < 3
    assert abs(shown.std() - grey.std()) < 6


def test_a_clean_data_set_has_a_page_too(tmp_path: Path) -> None:
    assert "0 errors" in page_of(check(clean(tmp_path).root, near=False, sample=0))


def test_a_page_shows_the_first_places_of_a_rule_and_counts_the_others(tmp_path: Path) -> None:
    data = clean(tmp_path)
    data.add("wrong", labels=[f"9 0.5 0.5 0.{number} 0.4" for number in range(100, 305)])
    text = page_of(check(data.root, near=False, sample=0))
    part = text[text.index('id="error-class-range"') :].partition("</section>")[0]
    assert (part.count("<li>"), part.count("<img")) == (200, 24)
    assert "and 5 more; the JSON file has all" in part


def test_a_thumbnail_of_a_large_image_is_small(tmp_path: Path) -> None:
    data = clean(tmp_path)
    data.add("large", encoded(picture(5, 960, 640)), labels=["9 0.5 0.5 0.5 0.5"])
    finding = next(f for f in check(data.root, near=False, sample=0).findings if f.rule.id == "class-range")
    assert Image.open(io.BytesIO(base64.b64decode(thumbnail(finding)))).size == (240, 160)


@pytest.mark.parametrize(
    "corners", [((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75)), ((0.25, 0.5), (0.75, 0.5))]
)
def test_an_outline_is_two_pixels_wide(corners: tuple[tuple[float, float], ...]) -> None:
    image = Image.new("RGB", (100, 100))
    _outline(image, corners)
    column = np.asarray(image)[:, 50, 0] > 0
    assert column.sum() == 2 * len({y for _, y in corners})
