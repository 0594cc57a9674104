"""Pixel scale: whether all pixels of a batch have one scale."""

from __future__ import annotations

from torch import Tensor

CREST = 16.0
"""Largest pixel of an image over its root mean square. Natural images and noise are below 5; a single pixel that is ruined
stands out by the square root of the number of pixels, 64 or more."""
SPREAD = 10.0
"""Root mean square of an image over that of the middle one of its batch."""


def are_of_one_scale(images: Tensor) -> bool:
    """Return whether all numbers have one scale, whichever it is: no pixel and no image stands out.

    Args:
        images: (images, ...) of any scale: raw counts of a sensor as well as 0 to 1.

    Syncs: one.

    Examples:
        >>> import torch
        >>> raw = 60000 * torch.rand(2, 3, 32, 32)
        >>> are_of_one_scale(raw), are_of_one_scale(raw.index_fill(0, torch.tensor([1]), 1e9))
        (True, False)
    """
    flat = images.detach().flatten(1).float().abs()
    size = flat.square().mean(dim=1).sqrt()
    even = (size.isfinite() & (flat.amax(dim=1) <= CREST * size)).all()
    return bool(even & (size.max() <= SPREAD * size.median()))
