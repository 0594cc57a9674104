"""Inspection of images and weights: what they show without running anything."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..guard.reductions import largest
from ..guard.wrappers import plainly_named
from .case import AutopsyCase
from .finding import shortened

MAX_WEIGHT = 1e8
"""A weight beyond this magnitude is absurd; a running variance beyond its square. As ``guard.max_value``."""
MAX_ORDINARY = 1e4
"""When half of all parameters have a weight beyond this magnitude, they have run away together."""
MOST_PLACES = 256
"""How many bad pixels of an image are looked up, evenly spread."""


@dataclass(frozen=True, slots=True)
class BadPixels:
    """Pixels of one image that no training can use."""

    sample: int
    what: str
    """In words: ``"NaN pixels"``, ``"infinite pixels"`` or ``"pixels of 1e+20"``."""
    count: int
    places: tuple[tuple[int, int], ...]
    """As (y, x); empty if the inputs are no images."""
    first: tuple[int, ...]
    """Index of the first one within the sample."""


@dataclass(frozen=True, slots=True)
class WeightFindings:
    """Parameters and buffers that were sick before the batch came."""

    not_finite: tuple[str, ...] = ()
    absurd: tuple[tuple[str, float], ...] = ()
    """Name and largest magnitude of finite ones, the largest first."""
    widespread: bool = False
    """Whether so many are absurd that no single number was ruined: the weights have run away together."""

    def __bool__(self) -> bool:
        return bool(self.not_finite or self.absurd)

    def __str__(self) -> str:
        """Say what is wrong, the first few by name; empty when nothing is."""
        if self.not_finite:
            return f"not finite: {', '.join(shortened(self.not_finite))}"
        return ", ".join(shortened([f"{name} is as large as {value:.3g}" for name, value in self.absurd]))


@torch.no_grad()
def bad_pixels(case: AutopsyCase) -> tuple[BadPixels, ...]:
    """Return the samples with non-finite or absurd inputs.

    Args:
        case: ``images`` of any shape with samples first; integers are never bad.

    Syncs: one read if all is well, a few per bad sample.
    """
    images = case.images
    if not images.is_floating_point() or not images.numel():
        return ()
    outside = ~(images.abs() <= case.limit)  # NaN is not below any limit
    found = []
    for sample in outside.reshape(len(images), -1).any(1).nonzero().flatten().tolist():
        image = images[sample]
        finite = image.isfinite()
        nan = image != image
        bad, what = (nan, "NaN pixels") if bool(nan.any()) else (~finite, "infinite pixels")
        if bool(finite.all()):
            bad, what = image.abs() > case.limit, f"pixels of {float(image.abs().max()):.3g}"
        if image.ndim != 3:
            what = what.replace("pixels", "inputs")
        where = bad.nonzero()
        places = tuple(sorted({(y, x) for _, y, x in _spread(where)})) if image.ndim == 3 else ()
        found.append(BadPixels(sample, what, len(where), places, tuple(where[0].tolist())))
    return tuple(found)


@torch.no_grad()
def bad_maps(case: AutopsyCase) -> tuple[BadPixels, ...]:
    """Return the samples whose label has a value for each pixel and cannot be used, with places in pixels of the image.

    Syncs: one read for each kind of label if all is well, a few per bad sample.
    """
    found = []
    for sample, (what, bad) in case.map_faults().items():
        where = bad.nonzero()
        up, across = (image / label for image, label in zip(case.images.shape[-2:], bad.shape, strict=True))
        places = tuple(sorted({(int((y + 0.5) * up), int((x + 0.5) * across)) for y, x in _spread(where)}))
        found.append(BadPixels(sample, what, len(where), places, tuple(where[0].tolist())))
    return tuple(found)


def _spread(where: Tensor) -> list[list[int]]:
    """Return at most :data:`MOST_PLACES` rows of many, evenly spread."""
    spread = torch.linspace(0, len(where) - 1, min(len(where), MOST_PLACES)).round().long()
    return where[spread.to(where.device)].tolist()


@torch.no_grad()
def sick_weights(model: nn.Module) -> WeightFindings:
    """Return non-finite parameters and buffers, and absurd parameters.

    Absurd buffers do not count: in training, BatchNorm writes its running statistics but does not use them.

    Syncs: one read per device and dtype.
    """
    parameters = _largest(plainly_named(model.named_parameters()))
    buffers = _largest(plainly_named(model.named_buffers()))
    not_finite = [name for name, value in {**parameters, **buffers}.items() if not math.isfinite(value)]
    absurd = {name: value for name, value in parameters.items() if MAX_WEIGHT < value < math.inf}
    return WeightFindings(
        not_finite=tuple(not_finite),
        absurd=tuple(sorted(absurd.items(), key=lambda pair: -pair[1])),
        widespread=len(absurd) >= max(2, 0.1 * len(parameters)) or _median(parameters.values()) > MAX_ORDINARY,
    )


def module_of(model: nn.Module, culprits: Iterable[str]) -> str:
    """Return the module of the first name that is a parameter or a buffer, or that ends with one, as those of an average do."""
    names = [name for name, _ in plainly_named([*model.named_parameters(), *model.named_buffers()])]
    for culprit in culprits:
        fitting = [name for name in names if culprit == name or culprit.endswith((f".{name}", f" {name}"))]
        if fitting:
            return max(fitting, key=len).rpartition(".")[0]
    return ""


def _median(values: Iterable[float]) -> float:
    ordered = sorted(value for value in values if math.isfinite(value))
    return ordered[len(ordered) // 2] if ordered else 0.0


def _largest(named: Iterable[tuple[str, Tensor]]) -> dict[str, float]:
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append((name, tensor.detach()))
    found: dict[str, float] = {}
    for members in groups.values():
        sizes = largest([tensor for _, tensor in members]).tolist()
        found.update(zip([name for name, _ in members], sizes, strict=True))
    return found
