"""Parameter walk: notices when a model or its optimizer has other parameters.

Walking a module tree for its parameters takes longer than a fused step of a small network. Comparing every parameter and module
of the tree by identity takes a tenth of that. What a callback adds, replaces or removes counts from the next window on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import nn


class ParameterWalk:
    """What a walk over a model and an optimizer met, to compare with what is there now."""

    def __init__(self) -> None:
        self._owners: list[dict[str, Any]] = []
        self._bare: list[dict[str, Any]] = []
        self._parts: list[Any] = []
        self._groups: list[dict[str, Any]] = []
        self._members: list[Any] = []
        self._begun = False

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Remember the current parameters and modules.

        Syncs: none.
        """
        held = [owner for module in model.modules() for owner in (module._parameters, module._modules)]
        self._owners, self._bare = [owner for owner in held if owner], [owner for owner in held if not owner]
        self._parts = _all_of(owner.values() for owner in self._owners)
        self._groups = list(optimizer.param_groups)
        self._members = _all_of(group["params"] for group in self._groups)
        self._begun = True

    def is_current(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether everything is as :meth:`begin` met it, and nothing else is there.

        Syncs: none.
        """
        return (
            self._begun
            and not any(self._bare)
            and _same(optimizer.param_groups, self._groups)
            and _same(_all_of(group["params"] for group in self._groups), self._members)
            and _same(_all_of(owner.values() for owner in self._owners), self._parts)
        )


def _all_of(parts: Iterable[Iterable[Any]]) -> list[Any]:
    return list(chain.from_iterable(parts))


def _same(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(map(is_, a, b))
