"""Compositions: pictures that differ in what matters and share all the rest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

WORDS = (
    "open",
    "save",
    "export",
    "user",
    "total",
    "date",
    "order",
    "price",
    "cancel",
    "city",
    "street",
    "failed",
    "paid",
)


def clouds(random: np.random.Generator, width: int, height: int, cells: int) -> np.ndarray:
    """Return smooth noise around 0: ``(height, width, 3)``."""
    coarse = random.integers(0, 256, (max(cells * height // width, 2), cells, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) - 128.0


def finished(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def head(seed: int) -> Image.Image:
    """Return a face on black: everybody has two eyes, a nose and a mouth in about the same place."""
    random = np.random.default_rng(seed)

    def about(value: float, spread: float) -> float:
        return value + random.normal(0, spread)

    image = Image.new("RGB", (240, 300))
    draw = ImageDraw.Draw(image)
    x, y, wide, tall = about(120, 2), about(150, 2), about(78, 3), about(105, 3)
    skin = tuple(int(about(value, 12)) for value in (200, 160, 135))
    hair = int(random.uniform(30, 70))
    draw.ellipse((x - wide, y - tall, x + wide, y + tall), fill=skin)
    draw.chord((x - wide, y - tall - 6, x + wide, y + tall), about(190, 6), about(350, 6), fill=(hair, hair, hair))
    for side in (-1, 1):
        eye, height, half = x + side * about(32, 2), y - about(19, 2), about(11, 1.5)
        draw.ellipse((eye - half, height - 6, eye + half, height + 6), fill=(240, 240, 240))
        draw.ellipse((eye - 4, height - 4, eye + 4, height + 4), fill=(40, 60, 80))
        draw.line((eye - 15, height - 15, eye + 15, about(height - 15, 2)), fill=(hair, hair, hair), width=4)
    mouth, lower = about(21, 4), y + about(49, 3)
    draw.ellipse((x - mouth, lower - 6, x + mouth, lower + 6), fill=(150, 60, 60))
    pixels = np.asarray(image).astype(float)
    skin_and_hair = pixels.sum(2, keepdims=True) > 0
    pixels += skin_and_hair * (0.12 * clouds(random, 240, 300, 8) + 0.06 * clouds(random, 240, 300, 25))
    return finished(pixels + random.normal(0, 2, pixels.shape))


def screen(seed: int, changed: int = 6) -> Image.Image:
    """Return a form in which a few of sixty fields have other words."""
    usual, random = np.random.default_rng(1000), np.random.default_rng(seed)
    image = Image.new("RGB", (960, 600), (244, 244, 246))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 960, 40), fill=(40, 70, 120))
    draw.rectangle((0, 40, 170, 600), fill=(225, 228, 235))
    for row in range(12):
        draw.text((16, 60 + row * 36), str(usual.choice(WORDS)).title(), fill=(30, 30, 40), font_size=17)
    other = set(random.choice(60, changed, replace=False).tolist())
    for field in range(60):
        x, y = 190 + field % 5 * 150, 60 + field // 5 * 43
        draw.rectangle((x, y, x + 140, y + 34), outline=(190, 190, 200), fill="white")
        words = [f"{source.choice(WORDS)} {source.integers(0, 1000)}" for source in (usual, random)]
        draw.text((x + 8, y + 8), words[field in other], fill=(20, 20, 20), font_size=15)
    return image


def rig(seed: int, size: float = 0.15) -> Image.Image:
    """Return a part before a fixed background, as a camera over a belt sees it."""
    fixed, random = np.random.default_rng(2000), np.random.default_rng(seed)
    width, height = 480, 360
    image = finished(90 + 0.2 * clouds(fixed, width, height, 6) + 0.1 * clouds(fixed, width, height, 40))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = fixed.integers(0, width), fixed.integers(0, height)
        corner = int(x + fixed.integers(10, 60)), int(y + fixed.integers(10, 60))
        draw.rectangle((int(x), int(y), *corner), fill=tuple(int(value) for value in fixed.integers(0, 255, 3)))
    x, y = width * random.uniform(0.3, 0.7), height * random.uniform(0.3, 0.7)
    angles = random.uniform(0, 7) + np.arange(sides := int(random.integers(3, 8))) * 2 * np.pi / sides
    reach = size * height * random.uniform(0.8, 1.2)
    corners = [(x + reach * np.cos(angle), y + reach * np.sin(angle)) for angle in angles]
    draw.polygon(corners, fill=tuple(int(value) for value in random.integers(100, 255, 3)))
    return finished(np.asarray(image) + random.normal(0, 2.5, (height, width, 3)))


COMPOSITIONS: dict[str, Callable[[int], Image.Image]] = {"heads": head, "screens": screen, "rig": rig}
