"""Labels that lie one image off through a whole split are told; honest ones, videos and noise are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from check.planted import Planted, encoded

from yolo_stable.check import check

COUNT = 40


def written(root: Path, shift: int, seed: int, contrast: float = 60, names: str = "{:02d}", speed: float = 1) -> Path:
    """Write a data set whose objects stand out by a contrast, with the labels of each image so many places further."""
    random = np.random.default_rng(seed)
    data = Planted(root, names=["a"])
    x, y = random.uniform(0.2, 0.8, (2, COUNT))
    if speed < 1:  # what is in the way of a camera moves a little from frame to frame
        x = 0.5 + 0.3 * np.cos(speed * np.arange(COUNT))
        y = 0.5 + 0.3 * np.sin(speed * np.arange(COUNT))
    for number in range(COUNT):
        pixels = random.integers(80, 120, (64, 64, 3))
        column, row = int(64 * x[number]), int(64 * y[number])
        pixels[row - 6 : row + 6, column - 6 : column + 6] += int(contrast)
        of = (number - shift) % COUNT
        label = f"0 {x[of]:.5f} {y[of]:.5f} 0.1875 0.1875"
        data.add(names.format(number), encoded(pixels.astype(np.uint8)), [label])
    data.add("val", split="val")
    return data.write()


def shifted(path: Path) -> list[str]:
    return [f.message for f in check(path).findings if f.rule.id == "label-shifted"]


@pytest.mark.parametrize(("shift", "where"), [(1, "before"), (-1, "after")])
@pytest.mark.parametrize("names", ["{:02d}", "{}"])  # 10 lies before 2 in one order of the names
def test_a_shift_by_one_is_told(tmp_path: Path, shift: int, where: str, names: str) -> None:
    (message,) = shifted(written(tmp_path, shift, 0, names=names))
    assert message.startswith(f"train: the labels lie one image off. They fit the image {where} theirs (")


@pytest.mark.parametrize(
    "options",
    [
        {"shift": 0},
        {"shift": 7},  # wrong, but nobody knows where they belong
        {"shift": 1, "contrast": 0},  # nothing stands out
        {"shift": 0, "speed": 0.05},
        {"shift": 1, "speed": 0.05},  # neighbours are as good
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_nothing_else_is(tmp_path: Path, options: dict[str, float], seed: int) -> None:
    assert shifted(written(tmp_path, **{"seed": seed, **options})) == []  # pyright: ignore[reportArgumentType]


def test_without_the_pixels_and_in_few_images_nothing_is_said(tmp_path: Path) -> None:
    path = written(tmp_path, 1, 0)
    assert not [f for f in check(path, near=False).findings if f.rule.id == "label-shifted"]
    for number in range(25, COUNT):
        (tmp_path / f"images/train/{number:02d}.png").unlink()
    assert shifted(path) == []
