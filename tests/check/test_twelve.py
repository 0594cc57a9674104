"""Twelve kinds of slips in a set of honest labels: each is found, and the same set without them is clean."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from check.planted import Planted, encoded
from check.test_near import photograph
from PIL import Image, ImageFilter

from yolo_stable.check import check

NAMES = ["cell", "plate", "rod"]
SIDES = {0: 0.2, 1: 0.05, 2: 0.1}
"""Usual sides of the classes."""
Slip = Callable[[Planted], None]


def sharp(seed: int) -> Image.Image:
    """Return a picture with hard edges."""
    pixels = np.asarray(photograph(seed, 160, 120)).copy()
    random = np.random.default_rng(seed)
    for _ in range(12):
        x, y = random.integers(0, (140, 100))
        pixels[y : y + 18, x : x + 18] = random.integers(0, 256, 3)
    return Image.fromarray(pixels)


def labels(seed: int) -> list[str]:
    """Return boxes of each class in its usual size, more or less."""
    random = np.random.default_rng(1000 + seed)
    lines = []
    for number in range(6):
        cls = number % 3
        width, height = SIDES[cls] * random.uniform(0.8, 1.25, 2)
        x, y = random.uniform(0.15, 0.85, 2)
        lines.append(f"{cls} {x:.5f} {y:.5f} {width:.5f} {height:.5f}")
    return lines


def honest(root: Path) -> Planted:
    data = Planted(root, names=NAMES)
    for seed in range(24):
        split = "val" if seed % 4 == 3 else "train"
        data.add(f"{seed:02d}.png", encoded(np.asarray(sharp(seed))), labels(seed), split)
    data.write()
    return data


def line(rule: str, text: str) -> Slip:
    """Return what adds a line to the labels of an image."""

    def plant(data: Planted) -> None:
        path = data.root / "labels/train/01.txt"
        path.write_text(path.read_text() + text + "\n")
        data.expect(rule, path, 7)

    return plant


def nearly_twice(data: Planted) -> None:
    path = data.root / "labels/train/01.txt"
    cls, x, *rest = path.read_text().splitlines()[0].split()
    path.write_text(path.read_text() + " ".join([cls, f"{float(x) + 0.002:.5f}", *rest]) + "\n")
    data.expect("box-near-duplicate", path, 7)


def unmeasured(data: Planted) -> None:
    for path in (data.root / "labels/val").iterdir():
        path.write_text("".join(f"{text}\n" for text in path.read_text().splitlines() if text[0] != "2"))
    data.expect("class-unmeasured", data.root / "data.yaml", 6)


def two_of_a_class(data: Planted) -> None:
    for path in (data.root / "labels").rglob("*.txt"):
        keep = path.name in {"00.txt", "03.txt"}
        lines = [text for text in path.read_text().splitlines() if keep or text[0] != "2"]
        path.write_text("".join(f"{text}\n" for text in lines))
    data.expect("class-rare", data.root / "data.yaml", 6)


def background(data: Planted) -> None:
    for seed in range(100, 172):
        data.add(f"{seed}.png", encoded(np.asarray(sharp(seed))), [])
    data.expect("background-share", data.root / "data.yaml", 1)


def crowd(data: Planted) -> None:
    lines = [f"1 {0.05 + 0.9 * (i % 12) / 12:.4f} {0.05 + 0.9 * (i // 12) / 12:.4f} 0.05 0.05" for i in range(130)]
    data.image("image-crowded", "crowd.png", encoded(np.asarray(sharp(200))), labels=lines)


def dark(data: Planted) -> None:
    pixels = (np.asarray(sharp(201)) * 0.1).astype(np.uint8)
    data.image("image-dark", "dark.png", encoded(pixels), labels=labels(201))


def blurred(data: Planted) -> None:
    pixels = np.asarray(sharp(202).filter(ImageFilter.GaussianBlur(4)))
    data.image("image-blurred", "blurred.png", encoded(pixels), labels=labels(202))


def mislabelled(data: Planted) -> None:
    path = data.root / "labels/train/02.txt"
    path.write_text(path.read_text() + "1 0.51234 0.4321 0.21 0.19\n")
    data.expect("class-size", path, 7)


def copied_labels(data: Planted) -> None:
    theirs = (data.root / "labels/train/05.txt").read_text().splitlines()
    image = data.add("other.png", encoded(np.asarray(sharp(203))), theirs)
    data.expect("label-same", data.label_of(image))


def copied_image(data: Planted) -> None:
    turned = sharp(2).transpose(Image.Transpose.ROTATE_90)
    content = encoded(np.asarray(turned), "JPEG", quality=80)
    copy = data.image("near-duplicate-across-splits", "copy.jpg", content, labels=labels(204), split="val")
    data.expect("near-duplicate-labels", copy)  # they are not those of the original


SLIPS: dict[str, Slip] = {
    "a box nearly twice": nearly_twice,
    "a box around everything": line("box-large", "0 0.5 0.5 0.99 0.98"),
    "a sliver": line("box-aspect", "0 0.5 0.5 0.78 0.0173"),
    "a class that is not in val": unmeasured,
    "80 % background": background,
    "a crowd": crowd,
    "a dark image": dark,
    "a blurred image": blurred,
    "a wrong class": mislabelled,
    "labels of another image": copied_labels,
    "a turned copy": copied_image,
    "two of a class": two_of_a_class,
}


def told(data: Planted) -> set[tuple[str, str, int | None]]:
    return {(finding.rule.id, finding.path, finding.line) for finding in check(data.root).findings}


def test_without_them_the_set_is_clean(tmp_path: Path) -> None:
    assert told(honest(tmp_path)) == set()


@pytest.mark.parametrize("kind", SLIPS)
def test_each_is_found_at_its_place(tmp_path: Path, kind: str) -> None:
    data = honest(tmp_path)
    SLIPS[kind](data)
    found = told(data)
    also = {"a box around everything": {"class-size"}, "a sliver": set()}.get(kind, set())
    assert data.expected <= found
    assert {rule for rule, *_ in found - data.expected} <= also


def test_all_of_them_in_one_set_are_twelve(tmp_path: Path) -> None:
    data = honest(tmp_path)
    together = {kind: plant for kind, plant in SLIPS.items() if kind != "a class that is not in val"}
    for plant in together.values():
        plant(data)
    found = {rule for rule, *_ in told(data)}
    rules = {rule for rule, *_ in data.expected}
    assert (len(together), len(rules - found)) == (11, 0)
