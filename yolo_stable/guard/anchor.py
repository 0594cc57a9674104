"""Anchor: the weights of the lowest loss, the reference for a loss that creeps up."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from .snapshot import Snapshot
from .witness import MODEL

STEP = 0.1
"""The anchor moves once the loss baseline, in log space, has fallen by this much: some twenty times in a run. A
creep to four times the lowest baseline is then one to at least 3.6 times that of the anchor."""


class Anchor:
    """One copy of parameters and buffers, on the host: recent snapshots have crept along with a slow creep."""

    def __init__(self) -> None:
        self.snapshot: Snapshot | None = None
        """Parameters and buffers, named as in a snapshot; None before the loss has a baseline."""
        self._baseline = 0.0

    def follow(self, baseline: float | None, step: int, live: Mapping[str, Tensor]) -> None:
        """Copy the weights if the loss has fallen enough since the last copy.

        Args:
            baseline: Logarithm of the loss baseline; None: there is none yet.
            step: Optimizer steps applied so far.
            live: The state's tensors, found healthy.

        Syncs: none; copies to pinned memory are queued.
        """
        if baseline is None or (self.snapshot is not None and baseline > self._baseline - STEP):
            return
        weights = {name: tensor for name, tensor in live.items() if name.startswith(MODEL)}
        if self.snapshot is None or not self.snapshot.fits(weights):
            self.snapshot = Snapshot(weights, on_host=True)
        self.snapshot.copy(step, weights)
        self._baseline = baseline

    def forget(self) -> None:
        """Drop it: the data changed, or the state was changed from outside."""
        self.snapshot = None
