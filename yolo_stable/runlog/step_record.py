"""Step record: what the log says about one optimizer step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LAYERS_KEPT = 10
"""Modules written of a step: those with the largest share of the gradient."""
LINES = 100_000
"""Lines after which the interval between two lines doubles, each time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepRecord:
    """One applied optimizer step in numbers; the keys of the event ``steps``, see ``runlog/events.py``."""

    batch: int
    step: int
    loss: Mapping[str, float]
    norm: float
    clip: float
    lr: tuple[float, ...]
    scale: float | None
    seconds: float
    memory: int | None
    layers: tuple[tuple[str, float], ...]
    """All modules, largest first."""

    def details(self) -> dict[str, Any]:
        """Return the record for the log: six digits of each number, four of a share, ten modules."""
        return {
            "batch": self.batch,
            "step": self.step,
            "loss": {name: _short(value) for name, value in self.loss.items()},
            "norm": _short(self.norm),
            "clip": _short(self.clip),
            "lr": [_short(rate) for rate in self.lr],
            "scale": self.scale,
            "seconds": _short(self.seconds),
            "memory": self.memory,
            "layers": [[m, round(share, 4)] for m, share in self.layers[:LAYERS_KEPT]] or None,
        }


def interval(applied: int, every: int) -> int:
    """Return the steps between two lines at this point of a run; it grows, which keeps the log small.

    The first ``LINES`` lines are ``every`` steps apart, the next ``LINES`` twice as far, and so on: a log of ``n * LINES`` lines
    covers ``2 ** n`` times as many steps.

    Args:
        applied: Optimizer steps applied so far, over all parts of a resumed run.
        every: ``guard.telemetry_every``.

    Examples:
        >>> [interval(step, 10) for step in (0, 999_999, 1_000_000, 3_000_000, 7_000_000)]
        [10, 10, 20, 40, 80]
    """
    return every << ((applied // (LINES * every) + 1).bit_length() - 1)


def clip_factor(norm: float, max_norm: float | None) -> float:
    """Return the factor of ``clip_grad_norm_`` on the gradients.

    Examples:
        >>> round(clip_factor(40.0, 10.0), 6), clip_factor(3.0, 10.0), clip_factor(40.0, None)
        (0.25, 1.0, 1.0)
    """
    return 1.0 if max_norm is None else min(1.0, max_norm / (norm + 1e-6))


def _short(value: float) -> float:
    return float(f"{value:.6g}")
