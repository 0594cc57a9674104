"""Audit: whether the whole training state is healthy, asked before it is copied, validated or saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import reductions
from .health import first_names

SQUARES = ("running_var", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "max_square_avg", "sum")
"""State whose numbers are squares of others: believed up to the square of the limit."""
ROOM = 1e3
"""A value above the limit before the first step belongs to the model: it is believed up to this many times its size."""


@dataclass(frozen=True, slots=True)
class AuditFinding:
    """The result of an audit; true when something is wrong."""

    names: tuple[str, ...] = ()
    """Tensors that are not finite or absurd, the first few."""
    ema_only: bool = False
    """Whether all of them belong to the averaged model."""
    reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.names)


class Audit:
    """Finds numbers in the training state that no training produces.

    Args:
        max_value: Largest magnitude believed of a weight, a running mean or a momentum; its square of squares (running
            variances, second moments). None: any finite number.
        max_gradient: Largest norm of applied gradients: optimizer state may reach `ROOM` times this, if that is more. None: any.
    """

    def __init__(self, max_value: float | None, max_gradient: float | None = 0.0) -> None:
        self.max_value = max_value
        self._moments = math.inf if max_gradient is None else ROOM * max_gradient
        self._raised: dict[str, float] = {}
        self._unjudged: set[str] = set()
        self._kinds: list[tuple[str, torch.device, torch.dtype]] = []
        self._names: list[str] = []
        self._limits: dict[tuple[torch.device, torch.dtype], tuple[list[int], Tensor]] = {}

    def calibrate(self, live: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Accept the state before the first step as healthy, and return the names of tensors beyond the limit.

        NaN in a trained tensor is never healthy. In a buffer it marks "not set": that buffer is not judged.

        Syncs: one per device and dtype.
        """
        self._kinds, self._raised, self._unjudged = [], {}, set()
        beyond: list[str] = []
        for name, largest in self._largest(live):
            if largest > self._limit(name, live[name].dtype):  # infinity too: attention masks are made of it
                beyond.append(name)
                self._raised[name] = ROOM * largest
            elif not math.isfinite(largest) and not live[name].requires_grad:
                beyond.append(name)
                self._unjudged.add(name)
        self._kinds = []
        return tuple(beyond)

    def inspect(self, live: Mapping[str, Tensor]) -> AuditFinding:
        """Judge every floating tensor of a state.

        Args:
            live: As from ``TrainingState.live()``.

        Syncs: one read per device and dtype (usually one).
        """
        self._follow(live)
        values = list(live.values())
        bad: list[tuple[str, float]] = []
        for members, limits in self._limits.values():
            largest = _largest_of(values, members)
            believed = largest.to(limits.dtype) <= limits  # NaN is not below any limit
            if not bool(believed.all()):
                seen = zip(members, believed.tolist(), largest.tolist(), strict=True)
                bad += [(self._names[i], value) for i, good, value in seen if not good]
        if not bad:
            return AuditFinding()
        names = [name for name, _ in bad]
        first, value = bad[0]
        squared = " squared" if _is_square(first) else ""
        beyond = (
            f" beyond guard.max_value={self.max_value:g}{squared}" if math.isfinite(value) and self.max_value else ""
        )
        return AuditFinding(
            names=first_names(names),
            ema_only=all(name.startswith("ema/") for name in names),
            reason=f"{first} {value:.3g}{beyond}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else ""),
        )

    def _limit(self, name: str, dtype: torch.dtype) -> float:
        largest = torch.finfo(_wide(dtype)).max
        usual = largest
        # A loss scale doubles for as long as gradients allow, far beyond any weight: finite is all that is asked of it.
        if self.max_value is not None and not name.startswith("scaler/"):
            of_optimizer = name.startswith("optimizer/")
            usual = max(self.max_value, self._moments) if of_optimizer else self.max_value
            if _is_square(name):
                usual = usual**2 if usual < 1e150 else math.inf
        return max(min(usual, largest), self._raised.get(name, 0.0))

    def _largest(self, live: Mapping[str, Tensor]) -> list[tuple[str, float]]:
        self._follow(live)
        values = list(live.values())
        found: list[tuple[str, float]] = []
        for members, _ in self._limits.values():
            largest = _largest_of(values, members).tolist()
            found += [(self._names[i], value) for i, value in zip(members, largest, strict=True)]
        return found

    def _follow(self, live: Mapping[str, Tensor]) -> None:
        """Compute the limits again when tensors, devices or dtypes have changed since the last audit."""
        kinds = [(name, tensor.device, tensor.dtype) for name, tensor in live.items()]
        if kinds == self._kinds:
            return
        names = list(live)
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, tensor in enumerate(live.values()):
            judged = tensor.is_floating_point() or tensor.is_complex()
            if judged and tensor.numel() and names[i] not in self._unjudged:
                groups.setdefault((tensor.device, tensor.dtype), []).append(i)
        self._kinds, self._names = kinds, names
        self._limits = {}
        for (device, dtype), members in groups.items():
            # On MPS there is no float64, nor a tensor that would need it.
            limits = torch.tensor([self._limit(names[i], dtype) for i in members], dtype=_wide(dtype), device=device)
            self._limits[device, dtype] = members, limits


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which limits of numbers of ``dtype`` are kept."""
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def _largest_of(values: list[Tensor], members: list[int]) -> Tensor:
    """Return the largest magnitude in each tensor, NaN where there is NaN; of complex numbers' parts, which cannot overflow."""
    chosen = [values[i].detach() for i in members]
    if chosen[0].is_complex():
        chosen = [torch.view_as_real(tensor.resolve_conj()) for tensor in chosen]
    return reductions.largest(chosen)


def _is_square(name: str) -> bool:
    return name.rpartition(".")[2].rpartition("/")[2] in SQUARES
