"""Ultralytics' MuSGD with clipping folded in and, on an accelerator, a skip that the device decides.

MuSGD adds a Muon update (momentum, orthogonalised by Newton-Schulz) and an SGD update. ``torch._fused_sgd_`` is its building
block here: it divides the gradient by ``grad_scale``, writes nothing when ``found_inf`` is 1, and with ``lr=-1`` and
``dampening = momentum`` it is an exponential moving average with a gated copy. Newton-Schulz of zeros is zeros, so nothing
else needs a gate.

Source: ``ultralytics/optim/muon.py``, 8.4.190; taken from the optimizer's own module, so that this package needs no
Ultralytics.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor


def is_musgd(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether this is Ultralytics' MuSGD, and one whose parts are where they are expected."""
    kind = type(optimizer)
    return kind.__name__ == "MuSGD" and hasattr(sys.modules.get(kind.__module__), "muon_update")


def musgd_step(optimizer: torch.optim.Optimizer, divisor: Tensor | None, skip: Tensor | None) -> None:
    """Take one step of MuSGD, its hooks included.

    Without a gate the gradients are taken as they are, clipped by the caller, and the Muon part is stock's own.

    Args:
        optimizer: A MuSGD.
        divisor: 0-dim float32 that gradients are divided by; None without a gate.
        skip: 0-dim float32, exactly 0.0 or 1.0, on the device: 1.0 changes nothing. None: no gate.

    Syncs: none.
    """
    hooked = torch.optim.Optimizer.profile_hook_step(torch.no_grad()(lambda self: _step(self, divisor, skip)))
    hooked(optimizer)
    optimizer._opt_called = True  # type: ignore[attr-defined]  # what learning-rate schedulers ask for


def _step(optimizer: Any, divisor: Tensor | None, skip: Tensor | None) -> None:
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
        lr, beta, scale = group["lr"], group["momentum"], divisor
        buffers = [optimizer.state[p]["momentum_buffer"] for p in params]
        if group["use_muon"]:
            if skip is None:
                updates = muon_update(grads, buffers, beta=beta, nesterov=group["nesterov"])
            else:
                updates = _gated_muon(muon_update, grads, buffers, beta, group["nesterov"], divisor, skip)
            scale = None  # divided in place by now
            torch._foreach_add_(params, updates, alpha=-(lr * optimizer.muon))
            buffers = [optimizer.state[p]["momentum_buffer_SGD"] for p in params]
            lr *= optimizer.sgd
        _fused_sgd(params, grads, buffers, lr, beta, group["nesterov"], group["weight_decay"], scale, skip)


def _gated_muon(
    muon_update: Any,
    grads: list[Tensor],
    buffers: list[Tensor],
    beta: float,
    nesterov: bool,
    divisor: Tensor | None,
    skip: Tensor,
) -> list[Tensor]:
    """Return the orthogonalised updates, zeros when skipped; divides the gradients and moves the momentum unless skipped."""
    averaged = _zeros(buffers)
    common: dict[str, Any] = {"weight_decay": 0.0, "nesterov": False, "maximize": False, "is_first_step": False}
    # buffers := beta buffers + (1 - beta) grads, averaged := buffers
    torch._fused_sgd_(
        averaged, grads, buffers, momentum=beta, lr=-1.0, dampening=beta, grad_scale=divisor, found_inf=skip, **common
    )
    if nesterov:  # beta buffers + (1 - beta) grads once more
        ahead = _zeros(buffers)
        torch._fused_sgd_(
            ahead, grads, [], momentum=0.0, lr=-(1 - beta), dampening=0.0, grad_scale=None, found_inf=skip, **common
        )
        torch._foreach_add_(ahead, averaged, alpha=beta)
    else:
        ahead = averaged
    # With beta = 0 the momentum becomes the update itself: only the batched orthogonalisation is left of the call.
    return muon_update(ahead, averaged if nesterov else _zeros(ahead), beta=0.0, nesterov=False)


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
    divisor: Tensor | None,
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
        grad_scale=divisor,
        found_inf=skip,
    )
