"""Validation batch: finds the batch of a validation whose loss is not finite, by running the batches again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from ..autopsy.batch_case import BatchCase
from ..guard.generators import GeneratorStates
from ..guard.untouched import untouched
from ..guard.wrappers import unwrap
from .forward import forward_of, precision_of
from .record import DrawnBatch, ImageNames


@dataclass(frozen=True)
class ValidationBatch:
    """One batch as the validator gives it to its model, with its loss."""

    case: BatchCase
    drawn: DrawnBatch
    precision: str
    loss: float
    items: Mapping[str, float]

    @classmethod
    def first_not_finite(
        cls, validator: Any, model: nn.Module, *, classes: int, seconds: float
    ) -> ValidationBatch | None:
        """Run the batches of a validation until the loss of one is not finite.

        This process loads them, which leaves the loader's workers and its position alone.

        Args:
            validator: Ultralytics', after a validation within a training.
            model: The validated model, in evaluation mode.
            classes: Their number.
            seconds: When the search ends.

        Returns:
            The batch; None without one, when the time is up, or if the loader cannot be run twice.

        Syncs: one read per batch.
        """
        end = time.monotonic() + seconds
        model, device = unwrap(model), validator.device
        precision = precision_of(validator.args.quantize == 16, None)
        for number, loaded in enumerate(_batches(validator.dataloader), start=1):
            if time.monotonic() > end:
                return None
            batch = validator.preprocess(loaded)
            generators = GeneratorStates(device)
            case = BatchCase(model, batch, forward_of(precision, device, generators.restore), classes=classes)
            with untouched(model, device), torch.no_grad():
                loss, items = case.call()
                numbers = {name: float(value) for name, value in items.items()}
            if not all(map(torch.isfinite, [loss, *map(torch.as_tensor, numbers.values())])):
                names = ImageNames(said=tuple(batch.get("im_file", ())))
                drawn = DrawnBatch(number=number, labels={}, names=names, batch=batch, generators=generators)
                return cls(case, drawn, precision, float(loss), numbers)
        return None


def _batches(loader: Any) -> Iterator[Any]:
    sampler, dataset, collate = (getattr(loader, name, None) for name in ("batch_sampler", "dataset", "collate_fn"))
    if sampler is None or dataset is None or collate is None:
        return
    for indices in islice(sampler, len(loader)):  # Ultralytics' own never ends
        yield collate([dataset[index] for index in indices])
