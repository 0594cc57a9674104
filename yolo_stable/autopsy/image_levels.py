"""Image levels: images whose numbers are the 256 levels of a file, kept as bytes and restored bit for bit.

Ultralytics divides the bytes of images by 255. Images that an augmentation or a fault changed afterwards are kept as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

RULES: dict[str, Callable[[Tensor], Tensor]] = {
    "divide": lambda levels: levels.float() / 255,
    "multiply": lambda levels: levels.float() * torch.tensor(255.0).reciprocal(),  # CUDA's division
}
"""How bytes became numbers."""


def split(images: Tensor) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Split images into bytes and the rest.

    Args:
        images: (B, C, H, W) float32 on the host, of any layout, with any numbers.

    Returns:
        The tensors ``levels`` (uint8) and ``rest`` (float32), each (B', C, H, W), and the plain values ``rule`` and ``exact``,
        the images in ``levels``; None if there are none.
    """
    if images.dtype != torch.float32 or images.ndim != 4 or not images.numel():
        return None
    best: dict[int, Tensor] = {}
    rule = ""
    for name, make in RULES.items():
        found = {i: levels for i, image in enumerate(images) if (levels := _levels(image, make)) is not None}
        if len(found) > len(best):
            best, rule = found, name
        if len(best) == len(images):
            break
    if not best:
        return None
    tensors = {"levels": torch.stack(list(best.values()))}
    rest = [i for i in range(len(images)) if i not in best]
    if rest:
        tensors["rest"] = images[rest].contiguous()
    return tensors, {"rule": rule, "exact": list(best)}


def join(levels: Tensor, rest: Tensor | None, plain: Any) -> Tensor:
    """Join what :func:`split` returned; contiguous.

    Raises:
        ValueError: The parts do not fit together.
    """
    rule, exact = (plain.get("rule"), plain.get("exact")) if isinstance(plain, dict) else (None, None)
    if not isinstance(rule, str) or rule not in RULES or not isinstance(exact, list):
        raise ValueError("it is not said how the bytes of its images became numbers")
    total = len(exact) + (0 if rest is None else len(rest) if rest.ndim == 4 else -1)
    places = [i for i in exact if type(i) is int and 0 <= i < total]
    if levels.dtype != torch.uint8 or levels.ndim != 4 or len(levels) != len(exact) or len(set(places)) != len(exact):
        raise ValueError("the parts of its images do not fit together")
    if rest is not None and (rest.dtype != torch.float32 or rest.shape[1:] != levels.shape[1:]):
        raise ValueError("the parts of its images have different shapes")
    if rest is None and places == sorted(places):
        return RULES[rule](levels)
    images = torch.empty((total, *levels.shape[1:]))
    images[places] = RULES[rule](levels)
    if rest is not None:
        images[[i for i in range(total) if i not in set(places)]] = rest
    return images


def _levels(image: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor | None:
    corner = image[:, :1]  # the first row shows most images that are not exact
    if _exact(corner, make) is None:
        return None
    return _exact(image, make)


def _exact(image: Tensor, make: Callable[[Tensor], Tensor]) -> Tensor | None:
    levels = (image * 255).round_().nan_to_num_(0, 0, 0).clamp_(0, 255).to(torch.uint8).contiguous()
    same = torch.equal(make(levels).view(torch.int32), image.contiguous().view(torch.int32))  # bits: -0.0 is not 0.0
    return levels if same else None
