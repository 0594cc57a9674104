"""Data stage: one real batch of each loader, as training and validation get it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .._shared.shell_text import CHECK
from ..autopsy.batch_case import IGNORED, BatchCase
from .stage import StageOutcome

BATCHES = 3
"""Batches that may be drawn before one must have a label."""
LARGEST = 10.0
"""A pixel beyond this was neither scaled to [0, 1] nor normalised."""
FIX = f"See what is wrong with files and labels:\n{CHECK}"


class LoaderBatches:
    """Batches of a trainer's loaders."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self._loader: Iterator[Any] | None = None
        self._drawn: list[dict[str, Any]] = []
        self._faults: list[str] = []
        self._raw: dict[str, Any] | None = None

    def draw(self, number: int) -> dict[str, Any]:
        """Return a training batch on the device, through the trainer's own loader and ``preprocess_batch``.

        Raises:
            IndexError: The data set has no more.
        """
        while len(self._drawn) <= number:
            if self._loader is None:
                self._loader = iter(self.trainer.train_loader)
            batch = next(self._loader, None)
            if batch is None:
                raise IndexError(number)
            self._faults += self._label_faults(batch, "train")
            self._drawn.append(self.trainer.preprocess_batch(batch))
        return self._drawn[number]

    def validation(self, most: int) -> dict[str, Any]:
        """Return at most ``most`` samples of the first validation batch, as the loader made it."""
        if self._raw is None:
            self._raw = next(iter(self.trainer.test_loader))
        assert self._raw is not None
        case = self._case(self._raw)
        return dict(self._raw) if case.size <= most else dict(case.select(range(most)).batch)

    def cut(self, batch: dict[str, Any], samples: Any) -> dict[str, Any]:
        """Return some samples of a batch, with their labels."""
        return dict(self._case(batch).select(samples).batch)

    def look(self) -> StageOutcome:
        """Judge a training and a validation batch."""
        batch = self.draw(0)
        images = batch["img"]
        wrong = self._image_faults(batch, "train")
        while not wrong and not self._faults and not any(map(_labels, self._drawn)) and len(self._drawn) < BATCHES:
            try:
                self.draw(len(self._drawn))
            except IndexError:
                break
        labels = sum(map(_labels, self._drawn))
        raw = self.validation(len(images))
        faults = [*self._faults, *self._label_faults(raw, "val")]
        wrong += self._image_faults(raw, "val")
        b, c, h, w = images.shape
        boxes = self.kind
        figure = f"train {b} x {c} x {h} x {w}, {labels} {boxes}; val {len(raw['img'])} images, {_labels(raw)} {boxes}"
        low, high = float(images.min()), float(images.max())
        found = StageOutcome(
            figure=f"{figure}; pixels {low:.3g} to {high:.3g}",
            details={
                "shape": list(images.shape),
                "labels": labels,
                "low": low,
                "high": high,
                "faults": [*wrong, *faults][:50],
            },
        )
        if wrong:
            return found.fail(
                f"{len(wrong)} images are not finite: {wrong[0]}",
                f"Ultralytics reads a .npy beside an image instead of it, broken or not: remove it.\n{FIX}",
            )
        if faults:
            return found.fail(f"{len(faults)} labels cannot be used: {faults[0]}", FIX)
        if not labels:
            images_drawn = sum(len(batch["img"]) for batch in self._drawn)
            folder = "labels" if "cls" in batch else "depth" if "depth" in batch else "masks"
            return found.fail(
                f"there is no label in {len(self._drawn)} training batches ({images_drawn} images)",
                f"Put the labels into a folder '{folder}' beside 'images', under the same names.\n{FIX}",
            )
        if max(abs(low), abs(high)) > LARGEST:
            return found.warn(
                f"pixels reach {high:.4g}, and a network expects 0 to 1",
                "Look at the transforms: images are not scaled to 0..1.",
            )
        if low == high:
            return found.warn(f"every pixel of the batch is {low:.3g}", FIX)
        if not _labels(raw):
            return found.warn("there is no label in the first validation batch: the score counts only the others", FIX)
        return found

    @property
    def kind(self) -> str:
        """What is counted as labels, in words: rows, or images with a label."""
        batch = self._drawn[0]
        told = next((words for key, words in MAPS.items() if key in batch), "images with a class")
        return "labels" if "batch_idx" in batch else told

    def _case(self, batch: dict[str, Any]) -> BatchCase:
        model: Any = self.trainer.model
        return BatchCase(model, batch, _nothing, classes=int(self.trainer.data["nc"]))

    def _label_faults(self, batch: dict[str, Any], split: str) -> list[str]:
        """Return what is wrong with the labels, with their files."""
        case = self._case(batch)
        owners = batch["batch_idx"].view(-1).tolist() if "batch_idx" in batch else range(case.size)
        return [f"{what} ({split}: {_name(case, int(owners[row]))})" for row, what in case.label_faults().items()]

    def _image_faults(self, batch: dict[str, Any], split: str) -> list[str]:
        images: Tensor = batch["img"]
        if not images.is_floating_point():
            return []
        bad = ~images.isfinite().flatten(1).all(1)
        case = self._case(batch)
        return [f"{split}: {_name(case, sample)}" for sample in torch.nonzero(bad).flatten().tolist()]


MAPS = {"semantic_mask": "images with a mask", "depth": "images with depth"}


def _labels(batch: dict[str, Any]) -> int:
    """Return how many labels there are; of those for each pixel, how many images have one that counts."""
    if "semantic_mask" in batch:
        return int((batch["semantic_mask"] != IGNORED).flatten(1).any(1).sum())
    if "depth" in batch:
        return int((batch["depth"] > 0).flatten(1).any(1).sum())
    return len(batch["cls"])


def _name(case: BatchCase, sample: int) -> str:
    path = case.path(sample)
    return path.rpartition("/")[2] or f"sample {sample}"


def _nothing(*_: Any) -> Any:
    raise AssertionError("This batch is looked at, not run.")
