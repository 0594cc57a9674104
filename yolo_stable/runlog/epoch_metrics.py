"""Epoch metrics: running means over accepted batches, and counts of what the guard did in an epoch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..guard import Decision, GuardVerdict


class LossNumber(float):
    """A number with the methods that callbacks call on stock's tensor in this place."""

    def item(self) -> float:
        """Return the number, as a tensor's ``item()`` does."""
        return float(self)

    def detach(self) -> LossNumber:
        """Return itself."""
        return self

    cpu = detach


DISPLAY = ("grad_norm", "rejected")
"""Columns that the progress bar shows after the loss items."""


class EpochMetrics:
    """Collects one epoch; :meth:`begin` starts the next.

    It computes the running loss as Ultralytics does, ``(mean * i + loss) / (i + 1)`` in float32, over accepted batches: without
    a rejection the numbers are equal to the last bit. A rejected window takes its batches out again: one of them may have had a
    loss of 1e25, which is finite.
    """

    def __init__(self) -> None:
        self.loss: dict[str, float] = {}
        """Running mean of each loss item; that of the last epoch until this one has an accepted batch."""
        self.norm = 0.0
        """Norm before clipping of the last applied step; 0 before the first."""
        self.begin()

    def begin(self) -> None:
        """Start an epoch: reset counts, carry means over until the first accepted batch."""
        self.accepted = self.rejected = self.applied = self.clipped = 0
        self.norm_sum = self.norm_max = 0.0
        self._mean: NDArray[np.float32] | None = None
        self._applied = self._mean, self.accepted, self.loss
        """Means and count after the last applied window, or at the start of the epoch."""

    def add(self, decision: Decision) -> None:
        """Count one decision of the guard."""
        if decision.verdict is GuardVerdict.BACKWARD:
            self._add_loss(decision.items)
        elif decision.rejected:
            self.rejected += 1
            names = self.loss or decision.items
            if decision.verdict is GuardVerdict.REJECT_WINDOW:
                self._mean, self.accepted, self.loss = self._applied
            if not self.loss:  # nothing healthy yet: 0 stands for "none", never the NaN
                self.loss = dict.fromkeys(names, 0.0)
        elif decision.verdict is GuardVerdict.ROLL_BACK:  # undoes its batches, not those before
            self._mean, self.accepted, self.loss = self._applied
        elif decision.norm is not None:
            self._applied = self._mean, self.accepted, self.loss
            self.applied += 1
            self.clipped += decision.verdict is GuardVerdict.CLIP
            self.norm = decision.norm
            self.norm_sum += decision.norm
            self.norm_max = max(self.norm_max, decision.norm)

    def _add_loss(self, items: Mapping[str, float]) -> None:
        new = np.array(list(items.values()), dtype=np.float32)
        if self._mean is not None:
            with np.errstate(over="ignore"):  # no warning for a mean beyond float32: the window will be rejected
                total = self._mean * np.float32(self.accepted) + new
                new = (total / np.float32(self.accepted + 1)).astype(np.float32)
        self._mean = new
        self.accepted += 1
        self.loss = dict(zip(items, new.tolist(), strict=True))

    @property
    def norm_mean(self) -> float:
        """Mean norm before clipping of the epoch's steps; without steps the last known norm."""
        return self.norm_sum / self.applied if self.applied else self.norm

    def progress(self) -> dict[str, float]:
        """Return the replacement of Ultralytics' running loss: its items, then the columns of ``DISPLAY``."""
        shown = {**self.loss, **dict(zip(DISPLAY, (self.norm, self.rejected), strict=True))}
        return {name: LossNumber(value) for name, value in shown.items()}

    def columns(self) -> dict[str, float]:
        """Return the epoch's columns for ``results.csv`` and every logger that Ultralytics feeds."""
        return {
            "guard/grad_norm": round(self.norm_mean, 5),
            "guard/grad_norm_max": round(self.norm_max, 5),
            "guard/clip_share": round(self.clipped / self.applied, 5) if self.applied else 0.0,
            "guard/rejected": self.rejected,
        }
