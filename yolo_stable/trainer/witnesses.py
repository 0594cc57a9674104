"""Witnesses: training batches kept aside to compare two states of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..guard.generators import random_state, restore_random_state
from ..guard.witness import BatchMeasurement
from .found import finding

MOST = 8
"""Batches to keep of an epoch, spread over it."""
MEMORY = 256 * 2**20
"""Host memory for them in bytes; the first one is kept anyway."""


class Witnesses:
    """Host copies of some batches of the newest epoch, as the model got them."""

    def __init__(self) -> None:
        self._batches: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self._batches)

    def see(self, batch: Mapping[str, Any], number: int, of: int) -> None:
        """Keep a batch when it is its turn.

        Args:
            batch: As the model is given it; tensors and what else the loss needs.
            number: Of the batch in its epoch, from 1; takes the place of the same one of an earlier epoch.
            of: Batches in an epoch.

        Syncs: as often as there are tensors in a batch that is kept.
        """
        if (number - 1) % -(-of // MOST):
            return
        self._batches.pop(number, None)
        room = MEMORY - sum(map(_size, self._batches.values()))
        if not self._batches or _size(batch) <= room:
            self._batches[number] = {
                key: value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
                for key, value in batch.items()
            }

    def clear(self) -> None:
        """Forget them."""
        self._batches.clear()

    def losses(self, model: nn.Module, tensors: Mapping[str, Tensor] | None = None) -> list[BatchMeasurement]:
        """Return a network's training loss on each batch, and how much it finds; leaves no trace.

        With the statistics of the batch, not the running ones: early in training, or at a high rate, those lag so far behind
        the weights that a validation finds nothing, and come after by themselves.

        Args:
            model: An Ultralytics network, which returns loss and items of a batch; only a copy is run.
            tensors: Parameters and buffers by name that the copy is given; None: the model's own.

        Syncs: one per batch.
        """
        device = next(model.parameters()).device
        generators = random_state(device)
        # In inference mode, as what a validation has left on the model are tensors of that mode.
        with torch.inference_mode():
            network = copy.deepcopy(model).train()
            for name, tensor in (*network.named_parameters(), *network.named_buffers()):
                if tensors is not None and name in tensors:
                    tensor.copy_(tensors[name])
            try:
                return [_measured(network, _on(device, batch)) for batch in self._batches.values()]
            finally:
                restore_random_state(*generators, device)


def _measured(network: nn.Module, batch: Mapping[str, Any]) -> BatchMeasurement:
    with finding() as found:
        loss = network(batch)[0].sum().float()
    loss_of, found_of = torch.stack([loss, found.share.to(loss)]).tolist()
    return BatchMeasurement(loss_of, found=found_of)


def _on(device: torch.device, batch: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


def _size(batch: Mapping[str, Any]) -> int:
    return sum(value.numel() * value.element_size() for value in batch.values() if isinstance(value, Tensor))
