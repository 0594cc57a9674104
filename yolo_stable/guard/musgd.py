"""Fused MuSGD: Ultralytics' MuSGD as fused kernels, with a skip that the device decides.

MuSGD adds a Muon update (momentum, orthogonalised by Newton-Schulz) and an SGD update. The Muon part is always stock's own
function, on gradients that were clipped as stock does: Newton-Schulz in bfloat16 makes a difference of 1e-5 out of one in the
last place. With a skip it works on copies of the momentum, and ``torch._fused_sgd_``, which writes nothing when ``found_inf`` is
1, writes the result: as a step without momentum, and, as a first step, as a copy into the momentum.

Source: ``ultralytics/optim/muon.py``, 8.4.190; taken from the optimizer's own module, so that this package needs no
Ultralytics.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .fused_kernel import FusedKernel, as_step
from .gradients import same_layout
from .sgd import fused_sgd


def is_musgd(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether this is Ultralytics' MuSGD, with its parts where they are expected."""
    kind = type(optimizer)
    return kind.__name__ == "MuSGD" and hasattr(sys.modules.get(kind.__module__), "muon_update")


class MuSGDKernel(FusedKernel):
    """Steps a MuSGD on gradients that were clipped as stock clips them.

    Args:
        optimizer: One for which :func:`is_musgd` is true.
    """

    clips_for_the_host = (
        False  # stock's clipping takes a hundredth of the step, and keeps the Muon part equal bit for bit
    )

    def is_fit(self) -> bool:
        """Return whether every group has momentum."""
        return all(group["momentum"] for group in self.optimizer.param_groups)

    def step(self, grads: Sequence[Tensor], divisor: Tensor | None, skip: Tensor | None) -> None:
        """As for every kernel, with the parameters' own gradients; ``divisor`` is None."""
        as_step(self.optimizer, lambda: _step(self.optimizer, skip))

    def step_unless(
        self,
        bad: Tensor,
        grads: list[Tensor],
        clipped: int,
        *,
        scale: Tensor | None,
        total: Tensor,
        norm: Tensor,
        skip: Tensor,
        max_norm: float | None,
    ) -> None:
        """As for every kernel, bit for bit as ``GradScaler`` and ``clip_grad_norm_`` unscale and clip."""
        if scale is not None:
            inverse = scale.double().reciprocal().to(torch.float32)
            torch._foreach_mul_(grads, inverse.masked_fill(bad, 1.0))
        if max_norm is not None:
            clip = (max_norm / (norm + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(grads[:clipped], clip.masked_fill(bad, 1.0))
        self.step(grads, None, skip)


def _step(optimizer: Any, skip: Tensor | None) -> None:
    muon_update = sys.modules[type(optimizer).__module__].muon_update  # type: ignore[attr-defined]
    for group in optimizer.param_groups:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            continue
        for p in params:
            state = optimizer.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p)
                if group["use_muon"]:
                    state["momentum_buffer_SGD"] = torch.zeros_like(p)
        grads = [p.grad for p in params]
        lr, beta, nesterov = group["lr"], group["momentum"], group["nesterov"]
        buffers = [optimizer.state[p]["momentum_buffer"] for p in params]
        if group["use_muon"]:
            rate = lr * optimizer.muon
            if skip is None:
                updates = muon_update(grads, buffers, beta=beta, nesterov=nesterov)
                torch._foreach_add_(params, updates, alpha=-rate)
            else:
                _gated_muon(muon_update, params, grads, buffers, beta, nesterov, rate, skip)
            buffers = [optimizer.state[p]["momentum_buffer_SGD"] for p in params]
            lr *= optimizer.sgd
        decay = group["weight_decay"]
        fused_sgd(params, grads, buffers, skip, lr=lr, momentum=beta, nesterov=nesterov, weight_decay=decay)


def _gated_muon(
    muon_update: Any,
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    beta: float,
    nesterov: bool,
    rate: float,
    skip: Tensor,
) -> None:
    """Take the Muon part of a step, or change nothing: NaN flows through it, and is not written."""
    moved = list(torch._foreach_mul(buffers, 1.0))
    updates = muon_update(grads, moved, beta=beta, nesterov=nesterov)
    # The kernel walks both in memory order.
    updates = [u if same_layout(u, p) else torch.empty_like(p).copy_(u) for p, u in zip(params, updates, strict=True)]
    fused_sgd(params, updates, [], skip, lr=rate)
    # A first step makes the gradient the momentum; what it does to the parameters is of no interest.
    fused_sgd(_zeros(buffers), moved, buffers, skip, lr=0.0, momentum=1.0, is_first_step=True)


def _zeros(like: list[Tensor]) -> list[Tensor]:
    return list(torch._foreach_sub(like, like))  # all at once; they are finite
