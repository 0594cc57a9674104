"""Augmentation that changes no more than a camera would: for Ultralytics' argument ``augmentations``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from .errors import InvalidCallError, nearest

_NO_UPDATE = "NO_ALBUMENTATIONS_UPDATE"


def conservative() -> list[Any]:
    """Return mild changes of pixels, for ``YOLO(...).train(augmentations=conservative())``.

    Light, contrast, sharpness, sensor noise and compression move within what an ordinary camera does from one day to the next.
    Nothing moves or hides an object, so that boxes, outlines and keypoints stay exact; 8-bit images stay 8-bit, so that no
    pixel can become NaN. Ultralytics' own transforms (mosaic, scale, flip, colour) stay as they are set: these take the place
    of its list of Albumentations alone.

    Returns:
        Transforms of Albumentations, which Ultralytics composes and writes into checkpoints as plain dictionaries.

    Raises:
        InvalidCallError: Albumentations is not installed.

    Examples:
        >>> [type(transform).__name__ for transform in conservative()][:2]
        ['RandomBrightnessContrast', 'RandomGamma']
    """
    a = _albumentations()
    return [
        a.RandomBrightnessContrast(brightness_limit=0.1, contrast_limit=0.1, p=0.2),
        a.RandomGamma(gamma_limit=(90, 110), p=0.1),
        a.Blur(blur_limit=3, p=0.02),
        a.GaussNoise(std_range=(0.005, 0.02), p=0.05),  # of 255: between one and five grey levels
        a.ImageCompression(quality_range=(75, 100), p=0.1),
        a.ToGray(p=0.01),
    ]


NAMED: dict[str, Callable[[], list[Any]]] = {"conservative": conservative}
"""What can stand behind ``augmentations=`` on the command line."""


def named(name: str) -> list[Any]:
    """Return a list of transforms by its name.

    Args:
        name: One of :data:`NAMED`.

    Raises:
        InvalidCallError: There is no such list.

    Examples:
        >>> len(named("conservative"))
        6
    """
    if name not in NAMED:
        raise InvalidCallError(
            f"augmentations={name} is not among {', '.join(NAMED)}.{nearest(name, NAMED)} Lists of your own are given in Python."
        )
    return NAMED[name]()


def _albumentations() -> Any:
    """Import Albumentations without its question to the network for a newer version, which it asks when it is imported."""
    before = os.environ.get(_NO_UPDATE)
    os.environ[_NO_UPDATE] = "1"
    try:
        import albumentations
    except ImportError as error:
        raise InvalidCallError(
            "augmentations=conservative needs Albumentations, which is not installed. Run: pip install 'albumentations>=2.0.8'"
        ) from error
    finally:
        if before is None:
            del os.environ[_NO_UPDATE]
        else:
            os.environ[_NO_UPDATE] = before
    return albumentations
