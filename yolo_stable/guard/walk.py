"""ParameterWalk: notices when a model or its optimizer has come by other parameters.

Walking a module tree for its parameters takes longer than a fused step of a small network. Asking whether the tree is still the
one that was walked takes a tenth of that: every parameter and every module in it is compared by identity.

What a callback adds, exchanges or takes away counts from the next window on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import is_
from typing import Any

import torch
from torch import nn


class ParameterWalk:
    """What a walk over a model and an optimizer has met, to be compared with what is there now."""

    def __init__(self) -> None:
        self._owners: list[dict[str, Any]] = []
        self._bare: list[dict[str, Any]] = []
        self._parts: list[Any] = []
        self._groups: list[dict[str, Any]] = []
        self._members: list[Any] = []
        self._begun = False

    def begin(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Remember the parameters and modules that there are.

        Syncs: none.
        """
        held = [owner for module in model.modules() for owner in (module._parameters, module._modules)]
        self._owners, self._bare = [owner for owner in held if owner], [owner for owner in held if not owner]
        self._parts = _all_of(owner.values() for owner in self._owners)
        self._groups = list(optimizer.param_groups)
        self._members = _all_of(group["params"] for group in self._groups)
        self._begun = True

    def is_current(self, optimizer: torch.optim.Optimizer) -> bool:
        """Return whether all of it is there as it was, and nothing else.

        Args:
            optimizer: The one that :meth:`begin` was given.

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
