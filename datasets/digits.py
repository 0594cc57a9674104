"""Draw the data set ``digits``: the handwritten digits of scikit-learn as ink on made-up photographic backgrounds.

The 1,797 digits are divided between training and validation before anything is drawn, so no digit is seen in both.
``samples.csv`` in the finished folder tells which digit went into which image.
"""

from __future__ import annotations

import functools
import math
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from yolo_stable.data.builtin import declaration, resolve, script
from yolo_stable.errors import InvalidCallError

Array = NDArray[np.float32]
Image = NDArray[np.uint8]
Rows = NDArray[np.int64]
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels; right and bottom are the first ones outside

DECLARED = declaration("digits")
SPLITS = ("train", "val")
TRAIN_SHARE = 0.8  # of each class's samples; validation draws from the others
SMALLEST = 8.0  # pixels; below that the 8 x 8 samples lose what tells them apart
MAX_OVERLAP = 0.1  # of the smaller box; a digit is made smaller until it finds such a place
PLACES_TRIED = 40  # for each size
VISIBLE = 0.25  # ink thinner than this share cannot be told from the background; boxes end where it begins
LUMA = np.array([0.114, 0.587, 0.299], np.float32)  # of blue, green, red (ITU-R BT.601)
MIN_CONTRAST = 75.0  # difference in luma between ink and the background below it, of 255
JPEG_QUALITY = 95


class Digit(NamedTuple):
    """One digit of an image: 0 to 9, its row in scikit-learn's ``load_digits``, and the box of its visible ink."""

    label: int
    sample: int
    box: Box


@functools.cache
def samples() -> tuple[Array, Rows]:
    """Return the handwritten digits of scikit-learn.

    Returns:
        The samples, shape [1797, 8, 8], 0 (paper) to 1 (ink), and their labels, shape [1797], 0 to 9.

    Raises:
        InvalidCallError: scikit-learn cannot be imported.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InvalidCallError(
            f"The data set 'digits' takes its digits from scikit-learn, which cannot be imported ({error}). "
            "Install it: pip install \"yolo-stable[demo]\". The data set 'shapes' needs no more than is there."
        ) from error
    features, labels = load_digits(return_X_y=True)
    return (np.asarray(features) / 16).astype(np.float32).reshape(-1, 8, 8), np.asarray(labels).astype(np.int64)


def split_samples(seed: int) -> dict[str, list[Rows]]:
    """Divide the samples between the splits; every sample belongs to exactly one.

    Args:
        seed: The seed of the data set.

    Returns:
        For ``train`` and ``val``, ten arrays: the rows of ``load_digits`` that may be drawn for each label.
    """
    labels = samples()[1]
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    pools: dict[str, list[Rows]] = {split: [] for split in SPLITS}
    for label in range(10):
        rows = rng.permutation(np.flatnonzero(labels == label))
        cut = round(TRAIN_SHARE * len(rows))
        pools["train"].append(rows[:cut])
        pools["val"].append(rows[cut:])
    return pools


def generate(folder: Path, *, task: str, seed: int, **options: int) -> None:
    """Draw all images and labels of the data set.

    Args:
        folder: An existing folder; ``images/`` and ``labels/``, or for ``classify`` ``train/`` and ``val/``, come here,
            and ``samples.csv``.
        task: ``detect`` or ``classify``.
        seed: 0 to 2**32 - 1.
        **options: See ``digits.yaml``; what is missing takes its default.

    Raises:
        InvalidCallError: A value is not allowed, or scikit-learn is missing.
        OSError: The folder cannot be written.
    """
    settings = resolve("digits", task=task, seed=seed, options=options)
    names, size = DECLARED["tasks"][task]["names"], settings["imgsz"]
    pools = split_samples(seed)
    rows = ["image,samples\n"]
    for split in SPLITS:
        images, labels = folder / "images" / split, folder / "labels" / split
        # A class folder may stay empty in a small set; without it Ultralytics would number the others differently.
        for path in [folder / split / name for name in names] if task == "classify" else [images, labels]:
            path.mkdir(parents=True)
        for number in range(settings[split]):
            image, digits = scene(number, task=task, split=split, seed=seed, settings=settings, pool=pools[split])
            if task == "classify":
                images = folder / split / names[digits[0].label]
            else:
                lines = [label_line(digit, size) + "\n" for digit in digits]
                (labels / f"{number:06d}.txt").write_bytes("".join(lines).encode())
            path = images / f"{number:06d}.jpg"
            path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes())
            rows.append(f"{path.relative_to(folder).as_posix()},{' '.join(str(digit.sample) for digit in digits)}\n")
    (folder / "samples.csv").write_bytes("".join(rows).encode())


def scene(
    number: int, *, task: str, split: str, seed: int, settings: dict[str, int], pool: list[Rows]
) -> tuple[Image, list[Digit]]:
    """Draw one image. It depends on nothing but the arguments, so a longer set begins with the shorter one.

    Args:
        number: Which image of the split, from 0.
        task: ``detect``, or ``classify`` for one large digit.
        split: ``train`` or ``val``.
        seed: The seed of the data set.
        settings: Every option that the task takes.
        pool: The rows that may be drawn for each label.

    Returns:
        The image, blue-green-red, shape [imgsz, imgsz, 3], and its digits.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), number)))
    size = settings["imgsz"]
    if task == "classify":
        labels, smallest, largest = [number % 10], 0.5, 0.75
    else:
        labels = rng.integers(10, size=rng.integers(settings["min_objects"], settings["max_objects"] + 1)).tolist()
        # So many digits of this height stand side by side; larger ones would find no room.
        room = 1 / math.ceil(math.sqrt(max(1, len(labels))))
        smallest, largest = settings["min_size"] / 100, min(settings["max_size"] / 100, room)
    image = background(rng, size)
    digits: list[Digit] = []
    for label in labels:
        sample = int(rng.choice(pool[label]))
        # Even on a logarithmic scale: as many digits of 24 to 36 pixels as of 36 to 54.
        height = size * math.exp(rng.uniform(math.log(smallest), math.log(largest)))
        ink, left, top = place(rng, samples()[0][sample], height, size, [digit.box for digit in digits])
        x, y, wide, tall = cv2.boundingRect((ink >= VISIBLE).astype(np.uint8))
        digits.append(Digit(label, sample, (left + x, top + y, left + x + wide, top + y + tall)))
        write_ink(rng, image[top : top + ink.shape[0], left : left + ink.shape[1]], ink)
    image += rng.normal(0, rng.uniform(1, 5), image.shape)  # the camera's sensor
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), digits


def handwriting(rng: np.random.Generator, sample: Array, height: float) -> Array:
    """Return the ink of one digit, slightly turned, sheared, stretched and blurred.

    Args:
        rng: The image's generator.
        sample: Shape [8, 8], 0 to 1.
        height: The height of the sample in pixels before it is turned.

    Returns:
        The share of ink in each pixel, 0 to 1, cut to the pixels that have any.
    """
    # Enlarged first, because warpAffine knows positions to 1/32 of a source pixel only.
    large = cv2.resize(np.pad(sample / sample.max(), 2), (96, 96), interpolation=cv2.INTER_CUBIC)
    scale, angle, shear = height / 64, math.radians(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) @ np.diag([rng.uniform(0.85, 1.1), 1]) * scale
    side = math.ceil(height * 2)
    shift = np.full(2, side / 2) - matrix @ np.full(2, 47.5)
    grey = cv2.warpAffine(large, np.column_stack([matrix, shift]), (side, side), flags=cv2.INTER_LINEAR)
    # The edge of a stroke fades over a range of greys; where it begins is the breadth of the pen. A steeper fade would
    # break the thin strokes or fill the holes of an 8.
    share = np.clip((grey - rng.uniform(0.15, 0.3)) / 0.4, 0, 1)
    ink = cv2.GaussianBlur((share * share * (3 - 2 * share)).astype(np.float32), (0, 0), rng.uniform(0.3, 0.8))
    x, y, wide, tall = cv2.boundingRect((ink >= 0.02).astype(np.uint8))
    cut = ink[y : y + tall, x : x + wide]
    return np.asarray(cut / cut.max() * rng.uniform(0.85, 1), np.float32)


def place(
    rng: np.random.Generator, sample: Array, height: float, size: int, boxes: list[Box]
) -> tuple[Array, int, int]:
    """Find a place for a digit where it hardly covers others, making it smaller when there is none.

    Returns:
        The ink, and the left and top pixel of its place, at least one pixel away from the image's border.
    """
    others = np.array(boxes, int).reshape(-1, 4)
    while True:
        height = max(height, SMALLEST)
        ink = handwriting(rng, sample, height)
        tall, wide = ink.shape
        if max(tall, wide) <= size - 2:
            low = rng.integers(1, [size - wide, size - tall], (PLACES_TRIED, 2))
            high = np.add(low, [wide, tall])
            sides = np.minimum(high[:, None], others[:, 2:]) - np.maximum(low[:, None], others[:, :2])
            smaller = np.minimum((others[:, 2:] - others[:, :2]).prod(axis=1), wide * tall)
            overlap = (sides.clip(0).prod(axis=2) / smaller).max(axis=1, initial=0)
            best = int(overlap.argmin())
            if overlap[best] <= MAX_OVERLAP or height <= SMALLEST:  # at the smallest size the best place has to do
                return ink, int(low[best, 0]), int(low[best, 1])
        height *= 0.85


def write_ink(rng: np.random.Generator, patch: Array, ink: Array) -> None:
    """Write ``ink`` (shape [h, w]) over ``patch`` (shape [h, w, 3], changed in place) in a colour that stands out."""
    luma = float(np.average(patch @ LUMA, weights=ink))
    room = rng.choice([side for side in (-luma, 255 - luma) if abs(side) >= MIN_CONTRAST])
    own = luma + room * rng.uniform(MIN_CONTRAST / abs(room), 1)
    patch += ink[..., None] * (tinted(rng, own, 60) - patch)


def tinted(rng: np.random.Generator, luma: float, strength: float) -> Array:
    """Return a random colour (blue, green, red; 0 to 255) of the given luma; ``strength`` bounds its colourfulness."""
    tint = rng.uniform(-strength, strength, 3)
    tint -= LUMA @ tint  # the weights of LUMA sum to 1, so the tint now has no luma
    # Fade the tint instead of clipping the colour, which would change its luma.
    fade = min(1.0, *((255 - luma) / tint[tint > 0]), *(luma / -tint[tint < 0]))
    return (luma + fade * tint).astype(np.float32)


def background(rng: np.random.Generator, size: int) -> Array:
    """Return something like an out-of-focus photograph of a surface: shape [size, size, 3], 20 to 235, no digits."""
    luma = rng.uniform(60, 195)
    other = luma + rng.uniform(15, 40) * rng.choice([-1, 1])
    colours = tinted(rng, luma, 35), tinted(rng, float(np.clip(other, 30, 225)), 35)
    field = pattern(rng, size)[..., None]
    image = colours[0] + field * (colours[1] - colours[0])
    image += rng.uniform(2, 8) * fractal(rng, size, 16)[..., None]  # the grain of the surface
    # Light from one side, and the darker corners of a lens.
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j].astype(np.float32)
    side = rng.uniform(0, 2 * math.pi)
    light = 1 + rng.uniform(0, 0.2) * (x * math.cos(side) + y * math.sin(side)) - rng.uniform(0, 0.25) * (x * x + y * y)
    image = cv2.GaussianBlur(image * light[..., None], (0, 0), rng.uniform(0.4, 1.5) * max(1, size / 160))
    return np.clip(image, 20, 235).astype(np.float32)


def fractal(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Return noise of mean 0 and deviation 1 with details from ``size / cells`` pixels downwards, shape [size, size]."""
    field = np.zeros((size, size), np.float32)
    fade, weight = rng.uniform(0.45, 0.75), 1.0
    while cells <= size // 2:
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        field += weight * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
        cells, weight = cells * 2, weight * fade
    return (field - field.mean()) / field.std()


def pattern(rng: np.random.Generator, size: int) -> Array:
    """Return how two colours mix on a surface: shape [size, size], 0 to 1."""
    noise = fractal(rng, size, 2)
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j].astype(np.float32)
    turn = rng.uniform(0, 2 * math.pi)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    kind = rng.choice(["plaster", "wood", "cloth", "stone", "lights", "horizon"])
    if kind == "wood":
        field = np.sin(rng.uniform(15, 50) * (along + 0.05 * noise) + 2 * fractal(rng, size, 3))
    elif kind == "cloth":
        thread = rng.uniform(60, 140)
        field = np.sin(thread * along) * np.sin(thread * across) + 0.5 * noise
    elif kind == "stone":
        field = np.rint(1.5 * noise) + 0.3 * fractal(rng, size, 8)
    elif kind == "lights":
        field = 0.3 * noise
        for _ in range(rng.integers(4, 12)):
            radius = rng.uniform(0.04, 0.15)
            distance = np.hypot(x - rng.uniform(0, 1), y - rng.uniform(0, 1))
            field += rng.uniform(0.5, 2) * np.clip((radius - distance) * 25 + 0.5, 0, 1)
    elif kind == "horizon":
        line = across - across.mean() + rng.uniform(-0.2, 0.2)
        field = 3 * np.tanh(line * 30) + noise * (line > 0)
    else:  # plaster
        field = 1.5 * noise
    return (1 / (1 + np.exp(-field))).astype(np.float32)


def label_line(digit: Digit, size: int) -> str:
    """Return the digit's line in Ultralytics' label format: class, centre, width and height as shares of ``size``."""
    left, top, right, bottom = digit.box
    values = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return " ".join([str(digit.label), *(f"{value / size:.6f}" for value in values)])


if __name__ == "__main__":
    sys.exit(script("digits"))
