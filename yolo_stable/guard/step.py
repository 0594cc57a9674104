"""How a window is turned into an optimizer step: norm, decision, clip, step, loss scale.

This is the one place where an optimizer is touched, and with ``loss_scale.py`` a scaler; a faster step replaces
:class:`ReferenceStep` and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from .config import GuardConfig
from .decision import Decision, Verdict, judge_window
from .gradients import each_norm
from .health import non_finite_names
from .loss_scale import LossScale
from .shares import Shares, module_of, shares
from .wrappers import plain_name


class ReferenceStep:
    """The same operations in the same order as Ultralytics' ``optimizer_step``, with the decision in between.

    With finite gradients the result is equal to stock's bit for bit: unscale, global 2-norm, clip, step, scale update.

    Args:
        model: Its parameters' gradients make the norm.
        optimizer: Any ``torch.optim.Optimizer`` whose ``step`` takes no closure.
        scaler: A ``torch.amp.GradScaler`` (or what behaves like one), or None.
        config: Clip limit, largest norm that is believed, floor of the loss scale.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None,
        config: GuardConfig,
    ) -> None:
        self.model, self.optimizer, self.config = model, optimizer, config
        self.scaler = scaler
        self.measure = False
        """Whether the decision on the next window shall say which modules its gradient comes from."""
        self._sizes: list[int] = []
        self._modules: list[str] = []
        self._parameters: list[nn.Parameter] = []
        self._outside: list[nn.Parameter] = []

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loop's loss scaler; another one is begun with anew."""
        return self._scaler

    @scaler.setter
    def scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        if scaler is None or scaler is not getattr(self, "_scaler", None):
            self.loss_scale = LossScale(self.config.min_scale)
            """What has been learned about the scaler's scale."""
        self._scaler = scaler

    def run(self) -> Decision:
        """Judge the window's gradients and apply them or not; the gradients are gone afterwards.

        Returns:
            ``APPLY``, ``CLIP``, ``REJECT_WINDOW`` or ``EMPTY``, with the norm before clipping.

        Syncs: one (reads the norm); with ``measure`` and a scaler one more (its scale).
        """
        parameters = self.parameters()
        grads = [p.grad for p in parameters if p.grad is not None]
        if not grads:
            return Decision(verdict=Verdict.EMPTY, reason="every micro-batch of the window was rejected")
        scaler = self.enabled_scaler()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        # As stock: NPUs lack the foreach kernels that the norm would use.
        foreach = False if grads[0].device.type == "npu" else None
        total = get_total_norm(grads, 2.0, foreach=foreach)
        each = each_norm(grads) if self.measure else []
        norm, *norms = to_device_vector([total, *each], total.device).tolist() if each else [float(total)]
        scale = scaler.get_scale() if scaler is not None and self.measure else None
        verdict, reason = judge_window(norm, self.config.max_norm, self.config.reject_norm)
        if verdict is Verdict.REJECT_WINDOW:
            decision = self.reject(norm, reason, scaler)
        else:
            # Below the limit stock multiplies by 1.0; the margin is for its rounding.
            if self.config.max_norm is not None and not (norm <= 0.999 * self.config.max_norm):
                clip_grads_with_norm_(parameters, self.config.max_norm, total, foreach=foreach)
            # Not scaler.step(): a finite norm says that nothing overflowed, so its own read is saved.
            self.apply()
            if scaler is not None:
                self.loss_scale.applied(scaler)
            decision = Decision(verdict=verdict, reason=reason, norm=norm, layers=self.shares(norms), scale=scale)
        self.drop_gradients()
        return decision

    def apply(self) -> None:
        """Take the optimizer's step with the gradients as they are."""
        self.optimizer.step()

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the model's parameters, then those that only the optimizer knows, each once."""
        seen: set[int] = set()
        for name, parameter in self.model.named_parameters():
            seen.add(id(parameter))
            yield plain_name(name).removeprefix("module."), parameter
        for g, group in enumerate(self.optimizer.param_groups):
            for i, parameter in enumerate(group["params"]):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield f"optimizer.param_groups[{g}][{i}]", parameter

    def parameters(self) -> list[nn.Parameter]:
        """Return what :meth:`named_parameters` yields, without names; walked again when a parameter group has changed."""
        sizes = [len(group["params"]) for group in self.optimizer.param_groups]
        if sizes != self._sizes:
            named = list(self.named_parameters())
            self._parameters = [p for _, p in named]
            self._modules = [module_of(name) for name, _ in named]
            known = {id(p) for group in self.optimizer.param_groups for p in group["params"]}
            self._outside = [p for p in self._parameters if id(p) not in known]
            self._sizes = sizes
        return self._parameters

    def shares(self, norms: list[float]) -> Shares:
        """Return what part of the squared norm each module has.

        Args:
            norms: Those of the gradients that there are, in the order of the parameters; none when they are not known.
        """
        if not norms:
            return ()
        parameters = self.parameters()
        return shares([m for m, p in zip(self._modules, parameters, strict=True) if p.grad is not None], norms)

    def enabled_scaler(self) -> torch.amp.GradScaler | None:
        """Return the scaler if there is one that scales."""
        return self.scaler if self.scaler is not None and self.scaler.is_enabled() else None

    def drop_gradients(self) -> None:
        """Forget all gradients, also those of parameters that the optimizer does not hold.

        A NaN left behind in such a parameter would make every later norm NaN.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self.parameters()
        for parameter in self._outside:
            parameter.grad = None

    def reject(self, norm: float, reason: str, scaler: torch.amp.GradScaler | None) -> Decision:
        """Name what was not finite, and settle with the scaler."""
        culprits = non_finite_names((n, p.grad) for n, p in self.named_parameters() if p.grad is not None)
        if scaler is not None:
            reason += self.loss_scale.rejected(scaler, overflowed=bool(culprits))
        return Decision(verdict=Verdict.REJECT_WINDOW, reason=reason, norm=norm, culprits=culprits)


def to_device_vector(values: list[Tensor], device: torch.device) -> Tensor:
    """Stack scalars into one vector, so that all of them cost a single read.

    Args:
        values: 0-dim or one-element tensors of any real dtype and device.
        device: Where the vector shall be.

    Returns:
        A 1-d tensor, float64 when any value is, else float32.

    Syncs: none when all tensors are on ``device``.
    """
    dtype = torch.float64 if any(v.dtype == torch.float64 for v in values) else torch.float32
    return torch.stack([v.detach().reshape(()).to(device=device, dtype=dtype) for v in values])
