"""Fused step: one pass for the norm, then clip, skip and update inside the optimizer's own kernel.

The fused kernels of ``torch.optim`` take two device tensors: ``grad_scale`` divides the gradient, ``found_inf`` skips the
update. With ``s`` the loss scale (1 without a GradScaler) and ``T`` the norm of the scaled gradients,

    grad_scale = max(s, (T + 1e-6 s) / max_norm)

unscales and then clips as ``clip_grad_norm_`` does, whose coefficient is ``max_norm / (T / s + 1e-6)``, at most 1. Gradients that
are not clipped, those of parameters that only the optimizer holds, are multiplied by ``grad_scale / s`` first.

Where a read costs nothing (the CPU), the host decides, and the kernel never skips. On an accelerator the device decides: the step
queues everything and then reads the norm once.

Traps, each with its test in ``tests/guard/test_fused.py``:

- ``SGD(fused=True)`` takes uninitialised memory for momentum when the first step is skipped: ``sgd.py`` makes it as zeros before.
- The kernels compare ``found_inf`` with 1: it is exactly 0 or 1.
- The groups' fused flags are set for the step alone, which leaves state dicts as in stock (``fused_kernel.py``).
- The kernels walk gradients and state in the memory order of the parameters: all get the layout of their parameter.
- Hooks before the optimizer's step get clipped gradients: they send the window through the reference step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import OptState
from torch.optim.optimizer import _global_optimizer_pre_hooks

from .config import GuardConfig
from .decision import Decision, GuardVerdict, judge_window
from .fused_kernel import FusedKernel
from .gradients import InFormat, by_format, has_no_gaps, kinds_of, same_layout, total_norm
from .health import all_finite
from .loss_scale import scale_of
from .musgd import MuSGDKernel, is_musgd
from .sgd import SGDKernel
from .step import ReferenceStep

KERNELS: dict[type, type[FusedKernel]] = {
    torch.optim.SGD: SGDKernel,
    torch.optim.Adam: FusedKernel,
    torch.optim.AdamW: FusedKernel,
}
"""Kernels by the optimizer's exact class: what derives from it may step in another way."""


def kernel_class(optimizer: torch.optim.Optimizer) -> type[FusedKernel] | None:
    """Return the kernel for an optimizer; None when there is none."""
    return MuSGDKernel if is_musgd(optimizer) else KERNELS.get(type(optimizer))


@dataclass(frozen=True, slots=True)
class _Window:
    """The gradients of a window, with norms that are still on the device."""

    parameters: list[nn.Parameter]
    """Those that have a gradient; the model's are first."""
    grads: list[Tensor]
    clipped: int
    """How many of the gradients, from the first on, are clipped."""
    total: Tensor
    """Norm of the clipped gradients."""
    apart: list[Tensor]
    """Norm of the others, if there are any."""
    norms: list[Tensor]
    """Norm of each clipped gradient, if wanted."""


class FusedStep(ReferenceStep):
    """A step with the result of :class:`ReferenceStep`, to rounding, at a fraction of its memory traffic.

    A window that it cannot take goes through the reference step: for example with hooks that must see clipped gradients, or with
    a replaced ``optimizer.step``.

    Args:
        model: As for the reference step.
        optimizer: SGD, Adam, AdamW, or Ultralytics' MuSGD.
        scaler: As for the reference step.
        config: As for the reference step.
        on_device: Whether the device decides; None: on all devices but the CPU.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        config: GuardConfig,
        *,
        on_device: bool | None = None,
    ) -> None:
        super().__init__(model, optimizer, scaler, config)
        self._on_device = on_device
        self._settled: list[nn.Parameter] = []
        self._formats: list[InFormat] = []
        self._held: list[Any] = []
        self._looked_at: list[nn.Parameter] = []
        self._is_fit = False
        self._rehearsed = {(p.device, p.dtype) for p in self.parameters()}
        """Devices and dtypes for which the fused step was chosen."""
        self.kernel = (kernel_class(optimizer) or FusedKernel)(optimizer)
        self._only_steps = False
        """Whether the kernel takes the step of a window that the reference step clips."""

    def run(self) -> Decision:
        """Judge the window's gradients, apply them or not, and drop them; returns what the reference step does.

        Raises:
            InvalidCallError: A gradient is sparse or complex.

        Syncs: one (reads the norm); on an accelerator after the step has been queued.
        """
        self._only_steps = False
        each = [p.grad for p in self.parameters()]  # once: for a small network that is a cost of its own
        parameters = [p for p, g in zip(self._parameters, each, strict=True) if g is not None]
        grads = [g for g in each if g is not None]
        clipped = len(grads)
        if self._clipped < len(each):
            clipped -= sum(g is not None for g in each[self._clipped :])
        if not clipped or self._needs_the_reference():
            return super().run()
        self._only_steps = not self.kernel.clips_for_the_host
        kinds = kinds_of(grads)
        on_device = grads[0].device.type != "cpu" if self._on_device is None else self._on_device
        if not on_device and self._only_steps:
            return super().run()
        norms: list[Tensor] = []
        if clipped == len(grads):
            total, apart = total_norm(grads, kinds, norms if self.measure else None), []
        else:
            own, others = grads[:clipped], grads[clipped:]
            total = total_norm(own, kinds_of(own), norms if self.measure else None)
            apart = [total_norm(others, kinds_of(others)).to(total)]
        window = _Window(parameters, grads, clipped, total, apart, norms)
        decide = self._device_decides if on_device else self._host_decides
        decision = decide(window, self.enabled_scaler())
        self.drop_gradients(applied=bool(decision))
        return decision

    def zero(self) -> None:
        """Drop the gradients that the optimizer holds, as ``zero_grad()`` does, in half its time."""
        strays = set(map(id, self._strays))
        for parameter in self._parameters:
            if not strays or id(parameter) not in strays:
                parameter.grad = None

    def apply(self) -> None:
        """Take the step of a window that the reference step has clipped."""
        if self._only_steps:
            parameters = [p for p in self.parameters() if p.grad is not None]
            self.kernel.step(self._lay_out(parameters, [p.grad for p in parameters if p.grad is not None]), None, None)
        else:
            super().apply()

    # ---- who decides ---------------------------------------------------------------------------------------------------

    def _host_decides(self, window: _Window, scaler: torch.amp.GradScaler | None) -> Decision:
        total = window.total
        one = torch.ones_like(total)
        scales = one if scaler is None else scale_of(scaler, total)
        scaled, scale, *norms = torch.stack([total, scales, *window.apart, *window.norms]).tolist()
        apart = [n / scale for n in norms[: len(window.apart)]]
        norm = self.judged(scaled / scale, apart)
        verdict, reason = judge_window(norm, self.config.max_norm, self.config.reject_norm)
        if verdict is GuardVerdict.REJECT_WINDOW:
            return self._rejected(window.parameters, norm, reason, scaler)
        divisor = scale
        if self.config.max_norm is not None:
            divisor = max(scale, (scaled + 1e-6 * scale) / self.config.max_norm)
        grads = self._lay_out(window.parameters, window.grads)
        if window.apart and divisor != scale:
            torch._foreach_mul_(grads[window.clipped :], divisor / scale)
        exact = divisor == 1.0
        self.kernel.step(
            grads, None if exact else torch.tensor(divisor, dtype=torch.float32, device=total.device), None
        )
        if scaler is not None:
            self._tell(scaler, torch.zeros((), dtype=torch.float32, device=total.device))
            self.loss_scale.applied(scaler)
        known = None if scaler is None or not self.measure else scale
        layers = self.shares(norms[len(window.apart) :])
        return Decision(verdict=verdict, reason=reason, norm=norm, layers=layers, scale=known)

    def _device_decides(self, window: _Window, scaler: torch.amp.GradScaler | None) -> Decision:
        parameters, total = window.parameters, window.total
        fresh = [p for p in parameters if not self.optimizer.state.get(p)]
        grads = self._lay_out(parameters, window.grads)
        scale = None if scaler is None else scale_of(scaler, total)
        norm = total if scale is None else total / scale
        apart = window.apart if scale is None else [n / scale for n in window.apart]
        # Written so that NaN is rejected. A limit above the largest number would become infinity, which infinity does not exceed.
        largest = torch.finfo(norm.dtype).max
        limit = min(largest if self.config.reject_norm is None else self.config.reject_norm, largest)
        bad = (norm <= limit).logical_not()
        for other in apart:
            bad = bad.logical_or((other <= limit).logical_not())
        skip = bad.to(torch.float32)
        self.kernel.step_unless(
            bad,
            grads,
            window.clipped,
            scale=scale,
            total=total,
            norm=norm,
            skip=skip,
            max_norm=self.config.max_norm,
        )
        also = [norm if scale is None else scale, *window.norms] if self.measure else []
        # The one read, after all has been queued.
        value, skipped, *also = torch.stack([norm, skip, *apart, *also]).tolist()
        value = self.judged(value, also[: len(apart)])
        del also[: len(apart)]
        if skipped:
            for p in fresh:  # the kernel made their state, all zero: remove that trace too
                self.optimizer.state.pop(p, None)
            self._settled = []
            _, reason = judge_window(value, None, self.config.reject_norm)
            return self._rejected(parameters, value, reason, scaler)
        verdict, reason = judge_window(value, self.config.max_norm, None)
        if scaler is not None:
            self._tell(scaler, skip)
            self.loss_scale.applied(scaler)
        known = also[0] if also and scale is not None else None
        return Decision(verdict=verdict, reason=reason, norm=value, layers=self.shares(also[1:]), scale=known)

    def _rejected(
        self, parameters: list[nn.Parameter], norm: float, reason: str, scaler: torch.amp.GradScaler | None
    ) -> Decision:
        if scaler is not None:
            if not math.isfinite(norm) and all_finite(p.grad for p in parameters if p.grad is not None):
                return super().run()  # squares of scaled gradients overflowed; those of unscaled ones may not
            self._tell(scaler, torch.ones((), dtype=torch.float32, device=parameters[0].device))
        return self.reject(norm, reason, scaler)

    # ---- the optimizer -------------------------------------------------------------------------------------------------

    def _needs_the_reference(self) -> bool:
        """Return whether something in this window needs the reference step."""
        replaced = self.optimizer.__dict__.get("step")  # a learning-rate scheduler wraps it, which is harmless
        scaler = self.enabled_scaler()
        if self._parameters is not self._looked_at:
            known = {(p.device, p.dtype) for p in self._parameters} <= self._rehearsed
            self._is_fit = known and not self._repeated and all(has_no_gaps(p) for p in self._parameters)
            self._looked_at = self._parameters
        return bool(
            not self._is_fit
            or any(p.grad is not None for p in self._strays)  # neither unscaled nor stepped, but clipped
            or _global_optimizer_pre_hooks
            or self.optimizer._optimizer_step_pre_hooks
            or (replaced is not None and getattr(replaced, "__wrapped__", None) is not type(self.optimizer).step)
            or not self.kernel.is_fit()
            or (scaler is not None and not self._may_keep_books_of(scaler))
        )

    def _lay_out(self, parameters: list[nn.Parameter], grads: list[Tensor]) -> list[Tensor]:
        """Give every gradient and state the layout of its parameter, prepare the kernel, and return the gradients."""
        state = self.optimizer.state
        if self._is_settled(parameters, grads):
            return grads
        for p in parameters:
            if p.grad is not None and not same_layout(p.grad, p):
                p.grad = torch.empty_like(p, dtype=p.grad.dtype).copy_(p.grad)
        for p, values in state.items():  # new, loaded, or of a parameter that has been given another layout
            for key, value in values.items():
                if isinstance(value, Tensor) and value.shape == p.shape and not same_layout(value, p):
                    values[key] = torch.empty_like(p, dtype=value.dtype).copy_(value)
                elif key == "step" and isinstance(value, Tensor) and value.device != p.device:
                    values[key] = value.to(p.device)  # the kernel counts on the device
        self.kernel.prepare(parameters)
        self._formats = by_format(parameters)
        self._settled = list(parameters) if self._formats else []
        self._held = list(next(iter(state.values()), {}).values())
        return [p.grad for p in parameters if p.grad is not None]

    def _is_settled(self, parameters: list[nn.Parameter], grads: list[Tensor]) -> bool:
        """Return whether nothing has changed since the last layout: the usual case, found out quickly.

        The first state's values stand for all: loading a state dict replaces every one.
        """
        first = next(iter(self.optimizer.state.values()), {}).values()
        return (
            len(parameters) == len(self._settled)
            and all(map(is_, parameters, self._settled))
            and len(first) == len(self._held)
            and all(map(is_, first, self._held))
            and self.kernel.is_prepared()
            and all(
                all(map(dense, map(tensors.__getitem__, places)))
                for dense, places in self._formats
                for tensors in (parameters, grads)
            )
        )

    # ---- the scaler ----------------------------------------------------------------------------------------------------

    def _may_keep_books_of(self, scaler: torch.amp.GradScaler) -> bool:
        """Return whether this scaler would have unscaled all gradients alike, as the step does."""
        stock: Any = torch.amp.GradScaler
        return (
            isinstance(scaler, stock)
            and type(scaler).unscale_ is stock.unscale_
            and type(scaler).update is stock.update
            and scaler._per_optimizer_states[id(self.optimizer)]["stage"] is OptState.READY  # else unscaled already
        )

    def _tell(self, scaler: torch.amp.GradScaler, found: Tensor) -> None:
        """Tell the scaler what ``unscale_`` finds, without its pass over all gradients."""
        book = scaler._per_optimizer_states[id(self.optimizer)]
        book["found_inf_per_device"] = {found.device: found}
        book["stage"] = OptState.STEPPED
