"""Fused SGD: ``torch.optim.SGD`` as calls of its fused kernel, on lists that are kept between steps.

``SGD.step()`` walks all parameters in Python, looks each one's state up and puts it back; for a small network that takes a
quarter as long as the kernel itself. What the step means stays as it is: hooks that run after it, state, hyperparameters
(read from the groups at each step), and what learning-rate schedulers ask for.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import torch
from torch import Tensor


class SGDLists:
    """The lists of parameters and momentum buffers of an SGD, for each group and dtype.

    Args:
        optimizer: Exactly a ``torch.optim.SGD``, without dampening where it has momentum.
    """

    def __init__(self, optimizer: torch.optim.SGD) -> None:
        self.optimizer = optimizer
        self._parts: list[tuple[dict[str, Any], list[Tensor], list[int], list[Tensor]]] = []
        self._momentum: list[bool] = []
        self._state: Any = None
        self._held: list[tuple[list[dict[str, Any]], list[Tensor]]] = []
        self._size = 0
        self._ready = False

    def collect(self, parameters: Sequence[Tensor]) -> None:
        """Make the lists anew; momentum has to be there where a group has some.

        Args:
            parameters: Those that have a gradient, in the order in which :meth:`step` is given the gradients.
        """
        self._parts = []
        place = {id(p): i for i, p in enumerate(parameters)}
        for group in self.optimizer.param_groups:
            kinds: dict[torch.dtype, list[Tensor]] = {}
            for p in group["params"]:
                if id(p) in place:
                    kinds.setdefault(p.dtype, []).append(p)
            for members in kinds.values():
                buffers = [self.optimizer.state[p]["momentum_buffer"] for p in members] if group["momentum"] else []
                self._parts.append((group, members, [place[id(p)] for p in members], buffers))
        self._momentum = self._with_momentum()
        self._state, self._size = self.optimizer.state, len(self.optimizer.state)
        self._held = [([self._state[p] for p in members], buffers) for _, members, _, buffers in self._parts if buffers]
        self._ready = len({p.device for _, members, _, _ in self._parts for p in members}) == 1

    def are_current(self) -> bool:
        """Return whether the lists still hold the buffers that the optimizer's state holds."""
        state = self.optimizer.state
        return (
            state is self._state
            and len(state) == self._size
            and self._momentum == self._with_momentum()
            and all(all(map(is_, (s.get("momentum_buffer") for s in each), buffers)) for each, buffers in self._held)
        )

    def step(self, grads: Sequence[Tensor], divisor: Tensor | None, skip: Tensor | None) -> bool:
        """Take one step, hooks included.

        Args:
            grads: The gradients of the parameters that :meth:`collect` was given; those that the optimizer does not hold
                stay as they are.
            divisor: 0-dim float32 that gradients are divided by, or None for 1.
            skip: 0-dim float32, exactly 0.0 or 1.0: 1.0 changes nothing. None: never skip.

        Returns:
            False when the lists cannot be used (parameters on several devices) and nothing has been done.

        Syncs: none.
        """
        if not self._ready:
            return False
        hooked = torch.optim.Optimizer.profile_hook_step(torch.no_grad()(lambda _: self._run(grads, divisor, skip)))
        hooked(self.optimizer)
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # what learning-rate schedulers ask for
        return True

    def _run(self, grads: Sequence[Tensor], divisor: Tensor | None, skip: Tensor | None) -> None:
        for group, members, places, buffers in self._parts:
            torch._fused_sgd_(
                members,
                [grads[i] for i in places],
                buffers,
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                lr=group["lr"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=group["maximize"],
                is_first_step=False,
                grad_scale=divisor,
                found_inf=skip,
            )

    def _with_momentum(self) -> list[bool]:
        return [bool(group["momentum"]) for group in self.optimizer.param_groups]
