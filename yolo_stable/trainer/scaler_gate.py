"""Scaler gate: the place between forward and backward of Ultralytics' training loop.

A copy of ``_do_train`` would freeze one version of Ultralytics; ``scaler.scale(loss)`` is the one call between forward and
backward in every version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor


class ScalerGate:
    """Replaces the loop's GradScaler so that ``scaler.scale(loss).backward()`` asks the guard first.

    Everything but :meth:`scale` goes to the scaler itself.

    Args:
        scaler: The loop's ``GradScaler``, or what a callback put in its place.
        backward: Called with the unscaled loss instead of the loss's own ``backward``.
    """

    def __init__(self, scaler: Any, backward: Callable[[Tensor], None]) -> None:
        self.scaler, self._backward = scaler, backward

    def scale(self, loss: Tensor) -> GatedLoss:
        """Return an object whose ``backward()`` goes through the gate."""
        return GatedLoss(loss, self._backward)

    def __getattr__(self, name: str) -> Any:
        if name == "scaler":  # copy and pickle ask before there is one
            raise AttributeError(name)
        return getattr(self.scaler, name)


class GatedLoss:
    """A loss that can be back-propagated, if the guard agrees, and nothing else."""

    def __init__(self, loss: Tensor, backward: Callable[[Tensor], None]) -> None:
        self._loss, self._backward = loss, backward

    def backward(self) -> None:
        """Hand the loss to the guard."""
        self._backward(self._loss)
