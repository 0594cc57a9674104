"""Open window: the micro-batches of the current accumulation window, as the model got them.

Before a rejection only the states of the random number generators are copied (50 microseconds a batch); the batches are kept by
reference, up to 256 MiB.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..checkpoints.trainer_view import TrainerView
from ..guard import Decision
from ..guard.generators import GeneratorStates
from ..guard.wrappers import unwrap
from ..incidents.forward import forward_of, precision_of
from ..incidents.pixels import are_of_one_scale
from ..incidents.record import DrawnBatch, ImageNames
from ..provenance.dataset import take
from .found import finding
from .loss_errors import LossWatcher

MEMORY = 256 * 2**20
"""Bytes of earlier micro-batches to keep until their window closes; the newest is in memory anyway."""


class OpenWindow:
    """Remembers the micro-batches since the last optimizer step.

    Args:
        trainer: Read for the device, the batch number and the precision.
        losses: Watches the loss of each micro-batch.
    """

    def __init__(self, trainer: TrainerView, losses: LossWatcher) -> None:
        self._trainer, self._losses = trainer, losses
        self.is_open = False
        """Whether a micro-batch was judged since the last optimizer step."""
        self._keeps_batches = False
        self.drawn: list[DrawnBatch] = []
        self.newest: dict[str, Any] = {}
        """The micro-batch at hand, as it went into the model; empty between windows."""
        self.own_fault: tuple[Decision, list[DrawnBatch]] | None = None
        """With several ranks: what this one found in its own micro-batches."""
        self._label_fault = ""

    @property
    def fault(self) -> str:
        """What is wrong with the current micro-batch before its loss is judged; empty: nothing."""
        return ", ".join(filter(None, (self._label_fault, self._losses.fault)))

    def open(self) -> None:
        """Note that a micro-batch is being judged."""
        self.is_open = True

    def close(self) -> None:
        """Note that the loop has called for a step."""
        self.is_open = False

    def keep_batches(self) -> None:
        """Keep earlier micro-batches from here on, for autopsies."""
        self._keeps_batches = True

    def draw(self, batch: dict[str, Any]) -> DrawnBatch:
        """Take out of a loader's batch what the model does not need."""
        self.newest = {}  # its memory is free before the next one comes to the device
        labels = {key: batch[key] for key in ("cls", "bboxes", "semantic_mask") if isinstance(batch.get(key), Tensor)}
        names = ImageNames(take(batch), tuple(batch.get("im_file", ())))
        return DrawnBatch(number=self._trainer.batch_number, labels=labels, names=names)

    def remember(self, drawn: DrawnBatch, batch: dict[str, Any]) -> None:
        """Keep a batch until its window is closed, and watch its loss.

        Args:
            drawn: What :meth:`draw` took out of it, and what is wrong with its labels.
            batch: As it goes into the model.

        Syncs: none.
        """
        self._losses.watch()
        self.newest, self._label_fault = batch, drawn.fault
        if not self._keeps_batches:
            return
        drawn.batch, drawn.generators = batch, GeneratorStates(self._trainer.device)
        while sum(earlier.nbytes for earlier in self.drawn) > MEMORY:
            self.drawn.pop(0)
        self.drawn.append(drawn)

    def forget(self) -> None:
        """Drop the batches of a closed window."""
        self._losses.leave()
        self.drawn, self.newest, self.own_fault = [], {}, None

    def blame_newest(self, decision: Decision) -> None:
        """Remember what this rank found in the micro-batch at hand; all ranks will reject its window."""
        self.own_fault = decision, self.drawn[-1:]

    def is_of_one_scale(self) -> bool:
        """Return whether the images of the current micro-batch are of one scale."""
        return "img" in self.newest and are_of_one_scale(self.newest["img"])

    def loss_again(self) -> tuple[Tensor, Tensor]:
        """Return the loss of the micro-batch at hand with the weights of now, and the share of its objects they find.

        Syncs: none.
        """
        trainer = self._trainer
        precision = precision_of(bool(trainer.amp), trainer.args.amp)
        forward = forward_of(precision, trainer.device, generators=lambda: None)
        with finding() as found:
            loss = forward(unwrap(trainer.model), self.newest, None)[0]
        return loss, found.share
