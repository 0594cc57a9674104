"""Anchor: the weights from when the loss was lowest, which a loss that creeps up is held against."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .snapshot import Snapshot
from .witness import MODEL

STEP = 0.1
"""The anchor moves when the level of the loss, in log space, has fallen by this much since: some twenty times in a run. A creep
to four times the lowest level is then one to at least 3.6 times that of the anchor."""


class Anchor:
    """One copy of parameters and buffers, on the host: the newest snapshots are too young to know what a slow creep has done.

    It is as large as the model's weights, and takes nothing of an accelerator's memory.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        """Parameters and buffers, named as in a snapshot; None before the loss has a level."""
        self._level = 0.0

    def follow(self, level: float | None, step: int, live: Mapping[str, Tensor]) -> None:
        """Copy the weights when the loss is lower than it was when they were copied last.

        Args:
            level: Logarithm of the level of the loss; None: it has none yet.
            step: Optimizer steps applied so far.
            live: The state's tensors, found healthy.

        Syncs: none; copies to pinned memory are queued.
        """
        if level is None or (self.snapshot is not None and level > self._level - STEP):
            return
        weights = {name: tensor for name, tensor in live.items() if name.startswith(MODEL)}
        if self.snapshot is None or not self.snapshot.fits(weights):
            self.snapshot = Snapshot(weights, on_host=True)
        self.snapshot.copy(step, weights)
        self._level = level

    def forget(self) -> None:
        """Drop it: the data are others now, or the state was changed from outside."""
        self.snapshot = None
