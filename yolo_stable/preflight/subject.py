"""Subject of a preflight: a model with everything that one training step needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ..autopsy.locate import loss_and_items
from ..guard import GuardConfig, StepGuard
from ..guard.state import TrainingState
from ..guard.untouched import device_of, untouched
from ..guard.wrappers import plainly_named, unwrap
from ..incidents.forward import AMP
from .hyperparameters import Plan


@dataclass(kw_only=True)
class Subject:
    """A model, its batches, and how to run them.

    Examples:
        >>> model = nn.Linear(2, 1)
        >>> subject = Subject(model=model, draw=[torch.ones(3, 2)].__getitem__, call=lambda x: model(x).square().mean())
        >>> bool(subject.run(subject.batch(0))[0] >= 0)
        True
    """

    model: nn.Module
    draw: Callable[[int], Any]
    """Returns batch 0, 1 or 2, on the device; raises IndexError when there is none."""
    call: Callable[[Any], Any]
    """Runs a batch forward, without autocast of its own; returns the loss, or loss and items."""
    optimizer: torch.optim.Optimizer | None = None
    ema: Any = None
    scaler: torch.amp.GradScaler | None = None
    precision: str = "float32"
    """Of training, one of :data:`~yolo_stable.incidents.forward.AMP`."""
    config: GuardConfig = field(default_factory=GuardConfig)
    """How the gradients are clipped."""
    network: nn.Module | None = None
    """The module that ends the network; None: ``model``."""
    cut: Callable[[Any, Sequence[int]], Any] | None = None
    """Returns a batch with some of the samples; None: batches cannot be cut."""
    size: Callable[[Any], int] = lambda batch: 1
    """Returns how many samples a batch has."""
    evaluate: Callable[[nn.Module], tuple[Any, Mapping[str, Any]]] | None = None
    """Runs a validation batch through a model in eval mode; returns outputs and loss items. None: nothing to validate."""
    evaluated_in: str = "float32"
    """The precision of the validation, one of :data:`~yolo_stable.incidents.forward.AMP`."""
    evaluated_on: Callable[[], str] = str
    """Returns in words what the validation ran on."""
    lr: float | None = None
    """The chosen learning rate; None: the largest of the optimizer's groups."""
    lr_note: str = ""
    """A note on it."""
    plan: Plan = field(default_factory=Plan)
    """What the training will set in the optimizer's groups."""

    def __post_init__(self) -> None:
        self._batches: dict[int, Any] = {}
        self.most: int | None = None
        """Samples of each batch that fit into the time; None: all."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return device_of(self.model)

    def batch(self, number: int) -> Any:
        """Return a batch, drawn on first use; IndexError when there is none."""
        if number not in self._batches:
            self._batches[number] = self.draw(number)
        batch = self._batches[number]
        if self.most is not None and self.most < self.size(batch):
            batch = self._batches[number] = self.part(batch, range(self.most))
        return batch

    def samples(self) -> str:
        """Say how many samples a step has."""
        return self.part_of() or f"{self.size(self.batch(0))} samples"

    def part_of(self) -> str:
        """Say how many samples of a batch there was time for; empty when all."""
        whole, size = self.size(self.draw(0)), self.size(self.batch(0))
        return "" if size == whole else f"{size} of {whole} samples"

    def batches(self, most: int) -> Iterator[Any]:
        """Yield up to ``most`` batches."""
        for number in range(most):
            try:
                yield self.batch(number)
            except IndexError:
                return

    def run(self, batch: Any, precision: str | None = None) -> tuple[Tensor, dict[str, Any]]:
        """Run a batch forward; return the loss as one element, and its items.

        Args:
            batch: As drawn, or cut; a dictionary is copied, since losses write into it.
            precision: One of :data:`~yolo_stable.incidents.forward.AMP`; None: that of training.

        Raises:
            TypeError: The result is no loss.
        """
        with autocast(self.device, precision or self.precision):
            loss, items = loss_and_items(self.call(dict(batch) if isinstance(batch, dict) else batch))
        if loss is None:
            raise TypeError("The forward pass returned no tensor that could be a loss.")
        return loss.sum(), items

    def part(self, batch: Any, samples: Sequence[int]) -> Any:
        """Return some samples of a batch, or all of them where it cannot be cut."""
        return batch if self.cut is None or len(samples) >= self.size(batch) else self.cut(batch, samples)

    def guard(self) -> StepGuard:
        """Return a new guard around the model and its optimizer."""
        assert self.optimizer is not None
        return StepGuard(self.model, self.optimizer, scaler=self.scaler, ema=self.ema, config=self.config)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return the parameters that require a gradient, by name."""
        return {name: p for name, p in plainly_named(unwrap(self.model).named_parameters()) if p.requires_grad}


@dataclass(frozen=True, kw_only=True)
class StateBefore:
    """The state at one moment."""

    tensors: Mapping[str, Tensor]
    """Copies, named as in :class:`~yolo_stable.guard.state.TrainingState`; without an optimizer of the model alone."""
    rewind: Callable[[], None]
    """Restores weights, buffers, optimizer, EMA, loss scale and generators."""


@contextmanager
def undone(subject: Subject) -> Iterator[StateBefore]:
    """Restore on leaving: weights, buffers, optimizer, EMA, loss scale, gradients, flags, generators."""
    model = unwrap(subject.model)
    with untouched(subject.model, subject.device):
        if subject.optimizer is None:
            both = plainly_named([*model.named_parameters(), *model.named_buffers()])
            own = {f"model/{name}": tensor for name, tensor in both}
            yield StateBefore(tensors={name: t.detach().clone() for name, t in own.items()}, rewind=lambda: None)
            return
        state = TrainingState(subject.model, subject.optimizer, scaler=subject.scaler, ema=subject.ema)
        kept = {name: tensor.detach().clone() for name, tensor in state.live().items()}
        aside, plain = state.aside()
        before = StateBefore(tensors=kept, rewind=lambda: state.restore({**kept, **aside}, plain))
        try:
            yield before
        finally:
            before.rewind()


@contextmanager
def autocast(device: torch.device, precision: str) -> Iterator[None]:
    """Compute in a precision; float32 switches off any surrounding autocast."""
    dtype = AMP[precision]
    with torch.amp.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        yield
