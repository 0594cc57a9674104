"""Autopsy case: a batch that can be replayed, cut down and changed, with its network."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import InvalidCallError
from .twin import copy_hooks

GREY = 114 / 255
"""Ultralytics' colour of borders."""
PRECISIONS = (None, "float32", "float64")

Forward = Callable[[nn.Module, Any, "str | None"], "tuple[Tensor, Mapping[str, Any]]"]
"""Runs the forward pass and the loss: ``forward(model, batch, precision) -> (loss, items)``.

Precision None: as in training, with autocast. ``"float32"``: without autocast. ``"float64"``: without autocast; model and batch
are float64 already, and the default dtype is float64 during the call.
"""
Polygon = Sequence[tuple[float, float]]
"""Corners (x, y) in pixels."""


class AutopsyCase(Protocol):
    """What an autopsy asks of a batch; methods that return a case leave this one unchanged."""

    model: nn.Module
    batch: Any

    @property
    def size(self) -> int:
        """How many samples there are."""
        ...

    @property
    def images(self) -> Tensor:
        """The network's input, samples first."""
        ...

    @property
    def limit(self) -> float:
        """Magnitude above which an element of ``images`` is absurd."""
        ...

    def call(self, precision: str | None = None, model: nn.Module | None = None) -> tuple[Tensor, Mapping[str, Any]]:
        """Run the forward pass and the loss, with another model if one is given."""
        ...

    def select(self, samples: Sequence[int]) -> AutopsyCase:
        """Return a case of these samples, in this order; one may repeat."""
        ...

    def blank(self, sample: int, polygon: Polygon | None, rows: Iterable[int] | None = None) -> AutopsyCase:
        """Return a case with a part of a sample grey, without the labels ``rows``, or those centred in the part."""
        ...

    def without_labels(self, rows: Iterable[int]) -> AutopsyCase:
        """Return a case without these label rows, counted over the whole batch."""
        ...

    def rows_of(self, sample: int) -> tuple[int, ...]:
        """Return the label rows of a sample; empty if labels cannot be removed."""
        ...

    def label_faults(self) -> dict[int, str]:
        """Return what is wrong with the labels themselves, by row."""
        ...

    def map_faults(self) -> dict[int, tuple[str, Tensor]]:
        """Return what is wrong with labels that have a value for each pixel, by sample, and where: bool (height, width)."""
        ...

    def path(self, sample: int) -> str:
        """Return the file that a sample came from; empty if unknown."""
        ...


class TensorCase:
    """A batch of ``(inputs, targets)``, both tensors with samples first.

    Args:
        model: The network.
        batch: Inputs and targets.
        forward: See :data:`Forward`.
        limit: Inputs beyond this magnitude are absurd.

    Raises:
        InvalidCallError: They are not two tensors with as many samples.
    """

    def __init__(self, model: nn.Module, batch: tuple[Tensor, Tensor], forward: Forward, *, limit: float = 1e6) -> None:
        if not (len(batch) == 2 and all(isinstance(t, Tensor) and t.ndim and len(t) == len(batch[0]) for t in batch)):
            raise InvalidCallError(
                "TensorCase takes (inputs, targets), two tensors with as many samples along their first dimension."
            )
        self.model, self.batch, self.forward, self.limit = model, batch, forward, limit

    @property
    def size(self) -> int:
        """How many samples there are."""
        return len(self.batch[0])

    @property
    def images(self) -> Tensor:
        """The inputs."""
        return self.batch[0]

    def call(self, precision: str | None = None, model: nn.Module | None = None) -> tuple[Tensor, Mapping[str, Any]]:
        """Run the forward pass and the loss."""
        with widened(model or self.model, self.batch, precision) as (network, batch):
            return self.forward(network, batch, precision)

    def select(self, samples: Sequence[int]) -> TensorCase:
        """Return a case of these samples."""
        inputs, targets = self.batch
        index = torch.as_tensor(list(samples), dtype=torch.long)
        return self._with((inputs[index.to(inputs.device)], targets[index.to(targets.device)]))

    def blank(self, sample: int, polygon: Polygon | None, rows: Iterable[int] | None = None) -> TensorCase:
        """Return a case with one sample's inputs at 0; targets stay."""
        inputs = self.batch[0].clone()
        inputs[sample] = 0
        return self._with((inputs, self.batch[1]))

    def without_labels(self, rows: Iterable[int]) -> TensorCase:
        """Return this case: targets cannot be removed."""
        return self

    def rows_of(self, sample: int) -> tuple[int, ...]:
        """Return nothing: targets cannot be removed."""
        return ()

    def label_faults(self) -> dict[int, str]:
        """Return targets that are not finite."""
        targets = self.batch[1]
        if not targets.is_floating_point():
            return {}
        bad = (~targets.isfinite()).reshape(len(targets), -1).any(1)
        return {int(row): "target not finite" for row in bad.nonzero().flatten().tolist()}

    def map_faults(self) -> dict[int, tuple[str, Tensor]]:
        """Return nothing: a target has no known layout."""
        return {}

    def path(self, sample: int) -> str:
        """Return nothing: no file is known."""
        return ""

    def _with(self, batch: tuple[Tensor, Tensor]) -> TensorCase:
        return TensorCase(self.model, batch, self.forward, limit=self.limit)


@contextmanager
def widened(model: nn.Module, batch: Any, precision: str | None) -> Any:
    """Yield model and batch in the precision; float64 yields copies, and is the default dtype for what the loss makes."""
    if precision not in PRECISIONS:
        raise InvalidCallError(f"precision={precision!r} is not one of {PRECISIONS}.")
    if precision != "float64":
        yield model, batch
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield doubled(model), _double(batch)
    finally:
        torch.set_default_dtype(before)


def doubled(model: nn.Module) -> nn.Module:
    """Return a float64 copy of a network, or the network itself if it is float64."""
    wide = all(p.dtype == torch.float64 for p in model.parameters() if p.is_floating_point())
    if wide:
        return model
    made = copy.deepcopy(model).double()
    copy_hooks(model, made)
    return made


def _double(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: _double(v) for key, v in value.items()}
    return tuple(_double(v) for v in value) if isinstance(value, tuple) else value
