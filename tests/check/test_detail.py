"""How alike pictures are related: one picture, one but for a band, or different pictures of one composition."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from check.compositions import COMPOSITIONS
from check.test_near import photograph
from PIL import Image, ImageFilter

from yolo_stable.check.detail import Kinship, kinships

SIDE = 64


def small(image: Image.Image) -> np.ndarray:
    """Return a grey copy: ``(1, 1, SIDE, SIDE)``."""
    grey = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(grey).mean(2, dtype=np.float32)[None, None]


def kin(one: np.ndarray, other: np.ndarray) -> int:
    return int(kinships(one, other, np.zeros((len(one), 4), np.float32)).kinds[0])


def patched(pixels: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Return a picture in which a part shows something else."""
    out = pixels.copy()
    out[..., top : top + height, left : left + width] = small(photograph(99))[..., :height, :width]
    return out


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "sharpened": lambda image: image.filter(ImageFilter.UnsharpMask(4, 150)),
    "smaller": lambda image: image.resize((107, 80)),
    "cropped": lambda image: image.crop((6, 5, 314, 235)),
    "darker": lambda image: image.point(lambda value: 0.6 * value),
}


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("seed", range(3))
def test_what_changes_the_whole_picture_leaves_it_the_same(kind: str, seed: int) -> None:
    image = photograph(seed)
    assert kin(small(image), small(COPIES[kind](image))) == Kinship.SAME


@pytest.mark.parametrize("seed", range(3))
def test_another_part_in_the_middle_makes_another_picture(seed: int) -> None:
    pixels = small(photograph(seed))
    assert kin(pixels, patched(pixels, 26, 28, 9, 9)) == Kinship.COMPOSITION


@pytest.mark.parametrize("place", [(0, 0, 8, 64), (56, 0, 8, 64), (0, 0, 64, 8), (0, 56, 64, 8), (54, 20, 6, 30)])
def test_another_band_along_a_side_is_told(place: tuple[int, int, int, int]) -> None:
    pixels = small(photograph(1))
    assert kin(pixels, patched(pixels, *place)) == Kinship.BANDED


def test_a_band_says_nothing_where_little_else_has_detail() -> None:
    pixels = small(photograph(1))
    pixels[..., :48, :] = 60
    assert kin(pixels, patched(pixels, 56, 0, 8, 64)) == Kinship.COMPOSITION


@pytest.mark.parametrize("kind", COMPOSITIONS)
def test_pictures_of_one_composition_are_different_ones(kind: str) -> None:
    pictures = np.concatenate([small(COMPOSITIONS[kind](seed)) for seed in range(8)])
    pairs = np.array([(a, b) for a in range(8) for b in range(a)])
    found = kinships(pictures[pairs[:, 0]], pictures[pairs[:, 1]], np.zeros((len(pairs), 4), np.float32))
    assert (found.kinds == Kinship.COMPOSITION).mean() > 0.9
    assert (found.kinds == Kinship.SAME).sum() == 0
