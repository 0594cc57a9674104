"""Incident budget: what is left out of an incident that would be too large."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

OPTIMIZER, WEIGHTS, BATCH = "the optimizer's state", "the weights", "the batch"
FIRST_TO_GO = (OPTIMIZER, WEIGHTS, BATCH)
"""Parts of an incident: no replay needs the first, and none is possible without the others."""


def left_out(sizes: Mapping[str, int], most: int | None) -> tuple[str, ...]:
    """Return the parts to leave out so that the others fit.

    Args:
        sizes: Bytes of each of :data:`FIRST_TO_GO`.
        most: ``guard.incident_bytes``; None: any size.

    Examples:
        >>> sizes = {OPTIMIZER: 20, WEIGHTS: 20, BATCH: 5}
        >>> left_out(sizes, 45), left_out(sizes, 44), left_out(sizes, 5)[1:], len(left_out(sizes, 4))
        ((), ("the optimizer's state",), ('the weights',), 3)
    """
    kept = list(FIRST_TO_GO)
    while kept and most is not None and sum(sizes[part] for part in kept) > most:
        kept.pop(0)
    return tuple(part for part in FIRST_TO_GO if part not in kept)


def sizes_of(state: Mapping[str, Tensor], batch: int) -> dict[str, int]:
    """Return the bytes of each part.

    Args:
        state: Tensors by name, as an incident has them.
        batch: Bytes of the batch.
    """
    of_optimizer = {name for name in state if is_of_optimizer(name)}
    return {
        OPTIMIZER: sum(_bytes(state[name]) for name in of_optimizer),
        WEIGHTS: sum(_bytes(tensor) for name, tensor in state.items() if name not in of_optimizer),
        BATCH: batch,
    }


def is_of_optimizer(name: str) -> bool:
    """Say whether a tensor of the state belongs to the optimizer."""
    return name.startswith("optimizer/")


def recorded(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what an incident says was left out; a stranger's words are none."""
    said = record.get("not_kept")
    return tuple(part for part in FIRST_TO_GO if isinstance(said, list) and part in said)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
