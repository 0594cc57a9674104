"""Audit: is the training state itself healthy? Asked of everything at once, before it is copied, validated or saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from . import reductions

SQUARES = ("running_var", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "max_square_avg", "sum")
"""Names of state whose numbers are squares of others: believed up to the square of the limit."""
ROOM = 1e3
"""What is above the limit before the first step is believed up to this many times its value: then it belongs to the model."""
NAMES_KEPT = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """What an audit found; true when something is wrong."""

    names: tuple[str, ...] = ()
    """Tensors that are not finite or absurd, the first few."""
    ema_only: bool = False
    """Whether all of them belong to the averaged model."""
    reason: str = ""
    """What is wrong, in words."""

    def __bool__(self) -> bool:
        return bool(self.names)


class Audit:
    """Looks for numbers in the training state that no training puts there.

    Args:
        max_value: Largest magnitude that is believed of a weight, a running mean, a momentum; its square is believed of
            squares (running variances, second moments). None: any finite number.
        max_gradient: Largest norm of gradients that are applied: the optimizer's state may be up to `ROOM` times as large,
            where that is more. None: of any size.
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
        """Take the state before the first step for healthy, and return the names of what is beyond the limit in it.

        NaN in what is trained is never healthy. In a buffer it is somebody's mark for "not set": that buffer is not judged.

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

    def inspect(self, live: Mapping[str, Tensor]) -> Finding:
        """Look at every floating tensor of a state.

        Args:
            live: As from ``TrainingState.live()``.

        Returns:
            A finding that is false when all is well.

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
            return Finding()
        names = tuple(name for name, _ in bad)
        first, value = bad[0]
        squared = " squared" if _is_square(first) else ""
        beyond = (
            f" beyond guard.max_value={self.max_value:g}{squared}" if math.isfinite(value) and self.max_value else ""
        )
        return Finding(
            names=names if len(names) <= NAMES_KEPT else (*names[:NAMES_KEPT], f"and {len(names) - NAMES_KEPT} more"),
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
        """Make the limits anew when the state has other tensors than at the last audit, or of another kind."""
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
    """Return the largest magnitude in each of some tensors of one device and dtype, NaN where there is NaN.

    Of complex numbers the parts are looked at, as their magnitude can overflow.
    """
    chosen = [values[i].detach() for i in members]
    if chosen[0].is_complex():
        chosen = [torch.view_as_real(tensor.resolve_conj()) for tensor in chosen]
    return reductions.largest(chosen)


def _is_square(name: str) -> bool:
    return name.rpartition(".")[2].rpartition("/")[2] in SQUARES
