"""Draw the data set ``shapes``: figures on a cloudy background, with labels computed from the corners that were drawn.

Coordinates are pixels of the continuous plane: pixel (column, row) covers [column, column + 1] x [row, row + 1]. A
figure is a polygon, and every label comes from that polygon, never from the pixels. The image of a seed, a split and a
number is the same for ``detect``, ``segment``, ``semantic``, ``depth`` and ``obb``; only the label differs.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from yolo_stable.data.builtin import declaration, resolve, script

Array = NDArray[np.float64]
Image = NDArray[np.uint8]

DECLARED = declaration("shapes")
SPLITS = ("train", "val")
MAPS = {
    "semantic": "masks",
    "depth": "depth",
}  # tasks with a label for each pixel, and the folder that Ultralytics reads
CIRCLE_CORNERS = 64  # a regular polygon; its edge leaves the circle by at most 0.12 % of the radius
HIDDEN_SHARE = 0.2  # of the pose figures have one keypoint under a disc
DISC_RADIUS = 0.16  # of the figure's radius
LUMA = np.array([0.114, 0.587, 0.299])  # of blue, green, red (ITU-R BT.601)
MIN_CONTRAST = 80.0  # difference in luma between a figure and the plain background, of 255
FIGURE_SIZE = 1.0  # diameter of every figure in metres, by which the depth of one that looks smaller is larger
BACKGROUND_DEPTH = 10.0  # metres; the smallest figures are nearer
CLOUDS = 30.0  # standard deviation of the clouds in luma at texture=100; MIN_CONTRAST grows by as much


class Figure(NamedTuple):
    """One figure of an image; all points are (x, y) in pixels.

    Attributes:
        label: The class id.
        corners: The polygon that is drawn, shape [n, 2].
        box: The corners of its oriented box, shape [4, 2].
        keypoints: Tip, left, right, tail as (x, y, visibility), shape [4, 3]; shape [0, 3] for tasks other than pose.
        disc: The polygon drawn over the hidden keypoint, shape [64, 2]; shape [0, 2] when none is hidden.
    """

    label: int
    corners: Array
    box: Array
    keypoints: Array
    disc: Array


def generate(folder: Path, *, task: str, seed: int, **options: int) -> None:
    """Draw all images and labels of the data set.

    Args:
        folder: An existing folder; ``images/`` and ``labels/`` (``masks/`` for ``semantic``, ``depth/`` for ``depth``), or for
            ``classify`` ``train/`` and ``val/``, come here.
        task: ``detect``, ``segment``, ``semantic``, ``depth``, ``obb``, ``pose`` or ``classify``.
        seed: 0 to 2**32 - 1.
        **options: See ``shapes.yaml``; what is missing takes its default.

    Raises:
        InvalidCallError: A value is not allowed.
        OSError: The folder cannot be written.
    """
    settings = resolve("shapes", task=task, seed=seed, options=options)
    names = DECLARED["tasks"][task]["names"]
    for split in SPLITS:
        images, labels = folder / "images" / split, folder / MAPS.get(task, "labels") / split
        # A class folder may stay empty in a small set; without it Ultralytics would number the others differently.
        for path in [folder / split / name for name in names] if task == "classify" else [images, labels]:
            path.mkdir(parents=True)
        for number in range(settings[split]):
            image, figures = scene(number, task=task, split=split, seed=seed, settings=settings)
            if task == "classify":
                images = folder / split / names[figures[0].label]
            elif task in MAPS:
                values = label_map(task, figures, settings["imgsz"])
                (labels / f"{number:06d}.png").write_bytes(cv2.imencode(".png", values)[1].tobytes())
            else:
                lines = [label_line(task, figure, settings["imgsz"]) + "\n" for figure in figures]
                (labels / f"{number:06d}.txt").write_bytes("".join(lines).encode())
            (images / f"{number:06d}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())


def scene(number: int, *, task: str, split: str, seed: int, settings: dict[str, int]) -> tuple[Image, list[Figure]]:
    """Draw one image. It depends on nothing but the arguments, so a longer set begins with the shorter one.

    Args:
        number: Which image of the split, from 0.
        task: The task; pose has figures of its own, classify shows one figure.
        split: ``train`` or ``val``.
        seed: The seed of the data set.
        settings: Every option that the task takes.

    Returns:
        The image, blue-green-red, shape [imgsz, imgsz, 3], and its figures; no two of them touch.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), number)))
    size, names = settings["imgsz"], DECLARED["tasks"]["detect" if task in MAPS else task]["names"]
    if task == "classify":
        labels = [number % len(names)]
    else:
        count = rng.integers(settings["min_objects"], settings["max_objects"] + 1)
        labels = rng.integers(len(names), size=count).tolist()
    ground = rng.uniform(40, 215, 3)
    strength = settings["texture"] / 100 * CLOUDS
    image = ground + strength * clouds(rng, size)[..., None]
    # Every figure has a cell of its own in a grid: as many as were asked for always fit, and no two overlap.
    grid = max(1, math.ceil(math.sqrt(len(labels))))
    cells = rng.permutation(grid * grid)[: len(labels)]
    figures: list[Figure] = []
    for label, cell in zip(labels, cells.tolist(), strict=True):
        origin = np.array([cell % grid, cell // grid]) * (size / grid)
        figure = make_figure(rng, names[label], label, origin, size / grid, pose=task == "pose")
        colour = contrasting(rng, float(LUMA @ ground), MIN_CONTRAST + strength)
        paint(image, figure.corners, colour)
        if len(figure.disc):
            paint(image, figure.disc, contrasting(rng, float(LUMA @ colour), MIN_CONTRAST))
        figures.append(figure)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8), figures


def clouds(rng: np.random.Generator, size: int) -> Array:
    """Return smooth noise of mean 0 and standard deviation 1, shape [size, size]."""
    field = np.zeros((size, size))
    for cells in (3, 6, 12):
        grid = rng.standard_normal((cells, cells))
        field += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * (3 / cells)
    return (field - field.mean()) / field.std()


def contrasting(rng: np.random.Generator, luma: float, contrast: float) -> Array:
    """Return a colour (blue, green, red; 0 to 255) whose luma differs from ``luma`` by ``contrast`` (<= 127) or more."""
    brighter = luma < 128 if min(luma, 255 - luma) < contrast else rng.random() < 0.5
    own = rng.uniform(luma + contrast, 255) if brighter else rng.uniform(0, luma - contrast)
    tint = rng.uniform(-90, 90, 3)
    tint -= LUMA @ tint  # the weights of LUMA sum to 1, so the tint now has no luma
    # Fade the tint instead of clipping the colour, which would change its luma.
    fade = min(1.0, *((255 - own) / tint[tint > 0]), *(own / -tint[tint < 0]))
    return own + fade * tint


def outline(rng: np.random.Generator, name: str) -> tuple[Array, Array]:
    """Return the corners and keypoints (tip, left, right, tail) of a figure that points up (towards y < 0)."""
    keypoints = np.zeros((0, 2))
    if name == "circle":
        turn = np.arange(CIRCLE_CORNERS) * (2 * math.pi / CIRCLE_CORNERS)
        corners = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    elif name == "rectangle":
        # Never nearly square, so that its oriented box is not ambiguous.
        half = rng.uniform(0.4, 0.8)
        corners = np.array([[-1, -half], [1, -half], [1, half], [-1, half]])
    elif name == "star":
        turn = np.arange(10) * (2 * math.pi / 10)
        radius = np.where(np.arange(10) % 2, rng.uniform(0.4, 0.55), 1.0)
        corners = np.stack([radius * np.sin(turn), -radius * np.cos(turn)], axis=1)
    elif name == "triangle":
        # The base is always the shortest side, so that the oriented box, which lies along it, is not ambiguous.
        corners = np.array([[-1, 0], [1, 0], [rng.uniform(-0.3, 0.3), -rng.uniform(1.9, 2.4)]])
    elif name == "kite":
        width, depth = rng.uniform(0.45, 0.65), rng.uniform(0.25, 0.4)
        corners = np.array([[0, -1.3], [width, 0], [0, depth], [-width, 0]])
        keypoints = corners[[0, 3, 1, 2]]
    else:  # arrow
        width, shaft, depth = rng.uniform(0.5, 0.8), rng.uniform(0.15, 0.3), rng.uniform(0.7, 1.1)
        right = [[width, 0], [shaft, 0], [shaft, depth]]
        corners = np.array([[0, -1], *right, *([-x, y] for x, y in reversed(right))])
        keypoints = np.array([[0, -1], [-width, 0], [width, 0], [0, depth]])
    return corners.astype(np.float64), keypoints.astype(np.float64)


def make_figure(rng: np.random.Generator, name: str, label: int, origin: Array, cell: float, *, pose: bool) -> Figure:
    """Turn, scale and place a figure so that it and its oriented box stay half a pixel inside its cell.

    Args:
        rng: The image's generator.
        name: The class name.
        label: The class id.
        origin: The cell's upper left corner (x, y), pixels.
        cell: The cell's side, pixels.
        pose: Whether the figure has keypoints, one of which may get a disc.

    Returns:
        The figure, in pixels of the image.
    """
    corners, points = outline(rng, name)
    low, high = corners.min(axis=0), corners.max(axis=0)
    box = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    # A star looks the same after a fifth of a turn and a circle after any: turning them further than that would give
    # images that look alike with boxes that do not.
    angle = {"circle": 0.0, "star": math.pi / 5}.get(name, math.pi) * rng.uniform(-1, 1)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    outer = cell / 2 - 0.5
    radius = outer / (1 + DISC_RADIUS if pose else 1) * rng.uniform(0.6, 1)
    free = outer - radius * (1 + DISC_RADIUS if pose else 1)
    centre = origin + cell / 2 + rng.uniform(-free, free, 2)
    scale = radius / float(np.linalg.norm(high - low) / 2)  # the corners of the box lie at `radius`

    def to_image(own: Array) -> Array:
        return (own - (low + high) / 2) @ turn * scale + centre

    keypoints = np.column_stack([to_image(points), np.full(len(points), 2.0)])
    disc = np.zeros((0, 2))
    if pose and rng.random() < HIDDEN_SHARE:
        hidden = rng.integers(len(keypoints))
        keypoints[hidden, 2] = 1
        disc = outline(rng, "circle")[0] * (DISC_RADIUS * radius) + keypoints[hidden, :2]
    return Figure(label, to_image(corners), to_image(box), keypoints, disc)


def coverage(corners: Array, size: int) -> tuple[Array, slice, slice]:
    """Return how much of each pixel a polygon covers.

    Args:
        corners: A polygon inside the image, shape [n, 2], pixels.
        size: The image's side, pixels.

    Returns:
        The covered share, 0 to 1, of the pixels in the smallest window around the polygon, and the window's rows and
        columns.
    """
    low = np.maximum(np.floor(corners.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(corners.max(axis=0)).astype(int), size)
    width, height = (high - low).tolist()
    samples = min(8, max(2, 2048 // max(width, height)))  # per pixel and axis; fewer for figures that fill much memory
    mask = np.zeros((height * samples, width * samples), np.uint8)
    # OpenCV puts whole numbers at the middle of a sample, and takes sixteenths of a sample with shift=4.
    points = np.rint(((corners - low) * samples - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [points], 254, shift=4)
    cv2.polylines(mask, [points], True, 127, shift=4)  # fillPoly fills the samples on the edge, half of each is outside
    share = cv2.resize(mask.astype(np.float32) / 254, (width, height), interpolation=cv2.INTER_AREA)
    return share.astype(np.float64), slice(low[1], high[1]), slice(low[0], high[0])


def paint(image: Array, corners: Array, colour: Array) -> None:
    """Paint a polygon over ``image`` (shape [size, size, 3], changed in place), with soft edges."""
    share, rows, columns = coverage(corners, len(image))
    image[rows, columns] += share[..., None] * (colour - image[rows, columns])


def label_line(task: str, figure: Figure, size: int) -> str:
    """Return the figure's line in Ultralytics' label format for ``task``; coordinates are shares of ``size``."""
    low, high = figure.corners.min(axis=0), figure.corners.max(axis=0)
    box = [*((low + high) / 2), *(high - low)]
    if task == "segment":
        values = figure.corners.ravel()
    elif task == "obb":
        values = figure.box.ravel()
    else:
        values = np.array(box)
    parts = [str(figure.label), *(f"{value / size:.6f}" for value in values)]
    if task == "pose":
        parts += [f"{x / size:.6f} {y / size:.6f} {seen:.0f}" for x, y, seen in figure.keypoints]
    return " ".join(parts)


def label_map(task: str, figures: list[Figure], size: int) -> NDArray[np.uint8 | np.uint16]:
    """Return the label of each pixel, shape [size, size]; a pixel is a figure's that covers half of it or more.

    For ``semantic`` class ids, the last class being the background. For ``depth`` distances in units of ``depth_scale``: all
    figures have one size, so one that looks half as large is twice as far away.
    """
    declared = DECLARED["tasks"][task]
    metre = declared.get("depth_scale")
    kind, ground = (np.uint8, len(declared["names"]) - 1) if metre is None else (np.uint16, BACKGROUND_DEPTH * metre)
    values = np.full((size, size), ground, kind)
    for figure in figures:
        share, rows, columns = coverage(figure.corners, size)
        looks = float(np.linalg.norm(figure.box[2] - figure.box[0])) / size
        values[rows, columns][share >= 0.5] = figure.label if metre is None else round(FIGURE_SIZE / looks * metre)
    return values


if __name__ == "__main__":
    sys.exit(script("shapes"))
