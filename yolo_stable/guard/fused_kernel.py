"""Fused kernel: one optimizer step that unscales, clips and skips inside the optimizer's own kernel.

Each optimizer that the fused step supports has a kernel: this one (Adam, AdamW), ``sgd.py`` and ``musgd.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class FusedKernel:
    """The fused step that ``torch.optim`` itself has.

    Args:
        optimizer: Exactly of the class that the kernel is for.
    """

    clips_for_the_host = True
    """Whether the kernel also clips where the host decides; else the reference step clips, and the kernel only steps."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer

    def is_fit(self) -> bool:
        """Return whether the kernel supports the groups' settings as they are now."""
        return True

    def prepare(self, parameters: Sequence[Tensor]) -> None:
        """Get ready to step these parameters: all that have a gradient, in the order of the gradients."""

    def is_prepared(self) -> bool:
        """Return whether what :meth:`prepare` made still belongs to the optimizer's state."""
        return True

    def step(self, grads: Sequence[Tensor], divisor: Tensor | None, skip: Tensor | None) -> None:
        """Take one step of the optimizer, hooks included.

        Args:
            grads: The gradients of the prepared parameters; the optimizer may not hold all of them.
            divisor: 0-dim float32 that the kernel divides gradients by; None: 1.
            skip: 0-dim float32, exactly 0.0 or 1.0: 1.0 changes nothing. None: never skip.

        Syncs: none.
        """
        self.optimizer.grad_scale, self.optimizer.found_inf = divisor, skip
        try:
            with fused_groups(self.optimizer):
                self.optimizer.step()
        finally:
            del self.optimizer.grad_scale, self.optimizer.found_inf

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
        """Unscale, clip and step, or change nothing; the device decides.

        Args:
            bad: 0-dim bool: change nothing.
            grads: As for :meth:`step`, multiplied by ``scale``.
            clipped: How many of the gradients, from the first on, are clipped.
            scale: 0-dim loss scale, or None.
            total: 0-dim norm of the clipped gradients, multiplied by ``scale``.
            norm: The same, not multiplied.
            skip: ``bad`` as a number.
            max_norm: Clip limit, or None.

        Syncs: none.
        """
        divisor = scale
        if max_norm is not None:
            clip = (total + (1e-6 if scale is None else 1e-6 * scale)) / max_norm
            divisor = clip.clamp(min=1.0) if scale is None else torch.maximum(scale, clip)
        divisor = divisor if divisor is None else divisor.to(torch.float32)
        others = grads[clipped:]
        if others and divisor is not None:
            back = (divisor if scale is None else divisor / scale).masked_fill(bad, 1.0)
            for g in others:
                g.mul_(back.to(g.device))
        self.step(grads, divisor, skip)


@contextmanager
def fused_groups(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Turn the fused kernel on for one step, and leave the groups as they were for ``state_dict()``.

    Set anew for each step: a loaded state dict brings its own flags, and a stale ``fused: False`` refuses ``found_inf``.
    """
    before = [(group, group.get("fused"), group.get("foreach")) for group in optimizer.param_groups]
    try:
        for group, _, _ in before:
            group["fused"], group["foreach"] = True, False
        yield
    finally:
        for group, fused, foreach in before:
            group["fused"], group["foreach"] = fused, foreach


def as_step(optimizer: Any, run: Callable[[], None]) -> None:
    """Run what replaces ``optimizer.step()``, with the optimizer's hooks and the mark that learning-rate schedulers look for."""
    torch.optim.Optimizer.profile_hook_step(torch.no_grad()(lambda _: run()))(optimizer)
    optimizer._opt_called = True
