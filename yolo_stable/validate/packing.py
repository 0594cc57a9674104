"""Packing: many small outputs of a recipe as a few long ones, so that judging a hundred combinations costs as much as one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

MARK = "|"
"""Between the name of an operation, whose outputs are packed together, and that of a combination."""
Pieces = tuple[tuple[str, int], ...]
"""The combinations of a packed output, and how many elements each has, in order."""


@dataclass(frozen=True)
class Packing:
    """Which outputs belong together: those of one operation in one type."""

    groups: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, outputs: Mapping[str, Tensor]) -> Packing:
        """Return the packing of the outputs of a device."""
        groups: dict[str, list[str]] = {}
        for name, tensor in outputs.items():
            groups.setdefault(f"{name.partition(MARK)[0]}:{str(tensor.dtype)[6:]}", []).append(name)
        return cls({group: tuple(names) for group, names in groups.items()})

    def pack(self, outputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return one flat tensor for each group."""
        return {g: torch.cat([outputs[name].reshape(-1) for name in names]) for g, names in self.groups.items()}

    def pieces(self, outputs: Mapping[str, Tensor]) -> dict[str, Pieces]:
        """Return the combinations in each flat tensor."""
        return {
            g: tuple((name.partition(MARK)[2], outputs[name].numel()) for name in names)
            for g, names in self.groups.items()
        }


def misshapen(outputs: Mapping[str, Tensor], references: Mapping[str, Tensor]) -> list[str]:
    """Return what is wrong with the names, shapes and kinds of outputs, in words; flat tensors no longer show it."""
    wrong = [f"{name} is missing" for name in references.keys() - outputs.keys()]
    for name, found in outputs.items():
        right = references[name]
        if found.shape != right.shape:
            wrong.append(f"{name} has the shape {tuple(found.shape)} where {tuple(right.shape)} is right")
        elif found.is_floating_point() != right.is_floating_point():
            wrong.append(f"{name} is of the type {found.dtype} where {right.dtype} is right")
    return wrong


def worst_piece(value: Tensor, reference: Tensor, scale: Tensor | None, pieces: Pieces) -> str:
    """Return the combination with the largest error; for the message of a failure."""
    y, r = value.double(), reference.double()
    error = (y - r).abs()
    if scale is not None:
        error = error / scale.double()
    error = torch.where((y == r) | ((y != y) & (r != r)), 0.0, error.nan_to_num(torch.inf, torch.inf))
    place = int(error.argmax())
    for name, count in pieces:
        place -= count
        if place < 0:
            return name
    return ""
