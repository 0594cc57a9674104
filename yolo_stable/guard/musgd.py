"""Ultralytics' MuSGD with clipping folded in and, on an accelerator, a skip that the device decides.

MuSGD adds a Muon update (momentum, orthogonalised by Newton-Schulz) and an SGD update. The Muon part is always stock's own
function, on gradients that were clipped as stock does: Newton-Schulz in bfloat16 makes a difference of 1e-5 out of one in the
last place. With a gate it works on copies of the momentum, and ``torch._fused_sgd_``, which writes nothing when ``found_inf`` is
1, carries out what came of it: as a step without momentum, and, as a first step, as a copy into the momentum.

Source: ``ultralytics/optim/muon.py``, 8.4.190; taken from the optimizer's own module, so that this package needs no
Ultralytics.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from .gradients import same_layout


def is_musgd(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether this is Ultralytics' MuSGD, and one whose parts are where they are expected."""
    kind = type(optimizer)
    return kind.__name__ == "MuSGD" and hasattr(sys.modules.get(kind.__module__), "muon_update")


def clip_as_stock(
    grads: list[Tensor], clipped: int, scale: Tensor | None, norm: Tensor, bad: Tensor, max_norm: float | None
) -> None:
    """Unscale and clip in place, bit for bit as ``GradScaler`` and ``clip_grad_norm_``, unless the window is skipped.

    Args:
        grads: Gradients, float32, multiplied by ``scale``.
        clipped: How many of them, from the first on, are clipped; all are unscaled.
        scale: 0-dim float32 loss scale, or None.
        norm: 0-dim float32 norm of the unscaled gradients.
        bad: 0-dim bool: the window is skipped, and the gradients stay as they are.
        max_norm: Where to clip, or None.

    Syncs: none.
    """
    if scale is not None:
        inverse = scale.double().reciprocal().to(torch.float32)
        torch._foreach_mul_(grads, inverse.masked_fill(bad, 1.0))
    if max_norm is not None:
        clip = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_(grads[:clipped], clip.masked_fill(bad, 1.0))


def musgd_step(optimizer: torch.optim.Optimizer, skip: Tensor | None) -> None:
    """Take one step of MuSGD, its hooks included, with the gradients as they are, clipped by the caller.

    Args:
        optimizer: A MuSGD.
        skip: 0-dim float32, exactly 0.0 or 1.0, on the device: 1.0 changes nothing. None: no gate.

    Syncs: none.
    """
    hooked = torch.optim.Optimizer.profile_hook_step(torch.no_grad()(lambda self: _step(self, skip)))
    hooked(optimizer)
    optimizer._opt_called = True  # type: ignore[attr-defined]  # what learning-rate schedulers ask for


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
        _fused_sgd(params, grads, buffers, lr, beta, nesterov, group["weight_decay"], skip)


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
    common: dict[str, Any] = {"weight_decay": 0.0, "dampening": 0.0, "nesterov": False, "maximize": False}
    torch._fused_sgd_(
        params, updates, [], momentum=0.0, lr=rate, is_first_step=False, grad_scale=None, found_inf=skip, **common
    )
    # A first step makes the gradient the momentum; what it does to the parameters is of no interest.
    torch._fused_sgd_(
        _zeros(buffers),
        moved,
        buffers,
        momentum=1.0,
        lr=0.0,
        is_first_step=True,
        grad_scale=None,
        found_inf=skip,
        **common,
    )


def _zeros(like: list[Tensor]) -> list[Tensor]:
    return list(torch._foreach_sub(like, like))  # all at once; they are finite


def _fused_sgd(
    params: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    skip: Tensor | None,
) -> None:
    torch._fused_sgd_(
        params,
        grads,
        buffers,
        weight_decay=weight_decay,
        momentum=momentum,
        lr=lr,
        dampening=0.0,
        nesterov=nesterov,
        maximize=False,
        is_first_step=False,
        grad_scale=None,
        found_inf=skip,
    )
