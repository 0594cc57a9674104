"""Is the training state itself healthy? Asked of everything at once, before it is copied, validated or saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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
    """

    def __init__(self, max_value: float | None) -> None:
        self.max_value = max_value
        self._raised: dict[str, float] = {}
        self._names: list[str] = []
        self._limits: dict[tuple[torch.device, torch.dtype], tuple[list[int], Tensor]] = {}

    def calibrate(self, live: Mapping[str, Tensor]) -> tuple[str, ...]:
        """Take the state before the first step for healthy, and return the names of what is beyond the limit in it.

        Syncs: one per device and dtype.
        """
        self._names = []
        self._raised = {}
        beyond: list[str] = []
        for name, largest in self._largest(live):
            if largest > self._limit(name):  # infinity too: attention masks are made of it
                beyond.append(name)
                self._raised[name] = ROOM * largest
        self._names = []
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
        bad: list[str] = []
        for members, limits in self._limits.values():
            # The infinity norm cannot overflow; NaN is not below any limit.
            largest = torch.stack(torch._foreach_norm([values[i].detach() for i in members], math.inf))
            believed = largest.to(limits.dtype) <= limits
            if not bool(believed.all()):
                seen = zip(members, believed.tolist(), largest.tolist(), strict=True)
                bad += [f"{self._names[i]} {value:.3g}" for i, good, value in seen if not good]
        if not bad:
            return Finding()
        names = tuple(word.split(" ")[0] for word in bad)
        return Finding(
            names=names if len(names) <= NAMES_KEPT else (*names[:NAMES_KEPT], f"and {len(names) - NAMES_KEPT} more"),
            ema_only=all(name.startswith("ema/") for name in names),
            reason=f"{bad[0]}" + (f" and {len(bad) - 1} more" if len(bad) > 1 else ""),
        )

    def _limit(self, name: str) -> float:
        if self.max_value is None:
            return torch.finfo(torch.float32).max
        squared = name.rpartition(".")[2].rpartition("/")[2] in SQUARES
        usual = self.max_value**2 if squared else self.max_value
        return max(min(usual, torch.finfo(torch.float32).max), self._raised.get(name, 0.0))

    def _largest(self, live: Mapping[str, Tensor]) -> list[tuple[str, float]]:
        self._follow(live)
        values = list(live.values())
        found: list[tuple[str, float]] = []
        for members, _ in self._limits.values():
            largest = torch.stack(torch._foreach_norm([values[i].detach() for i in members], math.inf)).tolist()
            found += [(self._names[i], value) for i, value in zip(members, largest, strict=True)]
        return found

    def _follow(self, live: Mapping[str, Tensor]) -> None:
        """Make the limits anew when the state has other tensors than at the last audit."""
        names = list(live)
        if names == self._names:
            return
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, tensor in enumerate(live.values()):
            if tensor.is_floating_point() and tensor.numel():
                groups.setdefault((tensor.device, tensor.dtype), []).append(i)
        self._names = names
        self._limits = {}
        for (device, dtype), members in groups.items():
            wide = torch.float64 if dtype == torch.float64 else torch.float32
            limits = torch.tensor([self._limit(names[i]) for i in members], dtype=wide, device=device)
            self._limits[device, dtype] = members, limits
