"""Fused SGD: ``torch.optim.SGD`` as calls of its fused kernel, on lists that are kept between steps.

``SGD.step()`` walks all parameters in Python and looks up the state of each; for a small network that takes a quarter as long as
the kernel itself. State, hooks after the step and hyperparameters (read from the groups at each step) are as in stock.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor

from .fused_kernel import FusedKernel, as_step


class SGDKernel(FusedKernel):
    """Keeps the lists of parameters and momentum buffers of an SGD, for each group and dtype.

    Args:
        optimizer: Exactly a ``torch.optim.SGD``, without dampening where it has momentum.
    """

    def __init__(self, optimizer: torch.optim.SGD) -> None:
        super().__init__(optimizer)
        self._parts: list[tuple[dict[str, Any], list[Tensor], list[int], list[Tensor]]] = []
        self._momentum: list[bool] = []
        self._state: Any = None
        self._held: list[tuple[list[dict[str, Any]], list[Tensor]]] = []
        self._size = 0
        self._on_one_device = False

    def prepare(self, parameters: Sequence[Tensor]) -> None:
        """Make the lists, and momentum that is not there yet as zeros.

        ``SGD(fused=True)`` takes uninitialised memory for momentum when its first step is skipped. Zeros give the same first step
        as none, bit for bit.
        """
        state = self.optimizer.state
        self._parts = []
        place = {id(p): i for i, p in enumerate(parameters)}
        for group in self.optimizer.param_groups:
            kinds: dict[torch.dtype, list[Tensor]] = {}
            for p in group["params"]:
                if id(p) in place:
                    kinds.setdefault(p.dtype, []).append(p)
                    if group["momentum"] and state[p].get("momentum_buffer") is None:
                        state[p]["momentum_buffer"] = torch.zeros_like(p)
            for members in kinds.values():
                buffers = [state[p]["momentum_buffer"] for p in members] if group["momentum"] else []
                self._parts.append((group, members, [place[id(p)] for p in members], buffers))
        self._momentum = self._with_momentum()
        self._state, self._size = state, len(state)
        self._held = [([state[p] for p in members], buffers) for _, members, _, buffers in self._parts if buffers]
        self._on_one_device = len({p.device for _, members, _, _ in self._parts for p in members}) == 1

    def is_prepared(self) -> bool:
        """Return whether the lists still hold the buffers that the optimizer's state holds."""
        state = self.optimizer.state
        return (
            state is self._state
            and len(state) == self._size
            and self._momentum == self._with_momentum()
            and all(all(map(is_, (s.get("momentum_buffer") for s in each), buffers)) for each, buffers in self._held)
        )

    def step(self, grads: Sequence[Tensor], divisor: Tensor | None, skip: Tensor | None) -> None:
        """As for every kernel; parameters on several devices take torch's own way."""
        if self._on_one_device:
            as_step(self.optimizer, lambda: self._run(grads, divisor, skip))
        else:
            super().step(grads, divisor, skip)

    def _run(self, grads: Sequence[Tensor], divisor: Tensor | None, skip: Tensor | None) -> None:
        for group, members, places, buffers in self._parts:
            settings = {
                key: group[key] for key in ("lr", "momentum", "nesterov", "weight_decay", "dampening", "maximize")
            }
            fused_sgd(members, [grads[i] for i in places], buffers, skip, grad_scale=divisor, **settings)

    def _with_momentum(self) -> list[bool]:
        return [bool(group["momentum"]) for group in self.optimizer.param_groups]


def fused_sgd(
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    skip: Tensor | None,
    *,
    lr: Any,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
    maximize: bool = False,
    is_first_step: bool = False,
    grad_scale: Tensor | None = None,
) -> None:
    """Call torch's fused SGD kernel; arguments as in ``torch.optim.SGD``, ``skip`` as for every kernel."""
    torch._fused_sgd_(
        params,
        grads,
        buffers,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=dampening,
        nesterov=nesterov,
        maximize=maximize,
        is_first_step=is_first_step,
        grad_scale=grad_scale,
        found_inf=skip,
    )
