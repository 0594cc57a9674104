"""Reference step: turns a window into an optimizer step by norm, decision, clip, step, loss scale.

Stock clips ``model.parameters()`` and steps what the optimizer holds. These need not be the same parameters:

- A parameter that only the optimizer holds (a weight that the loss learns) is stepped unclipped, and is not in the norm. Its
  gradients have to be finite like all others.
- A parameter that only the model holds (a *stray*: the optimizer was replaced, a layer came later) is in the norm and clipped,
  but never zeroed: its gradient adds up from window to window. A rejected window leaves it as it was when the window began.

The steps alone call an optimizer: :class:`ReferenceStep`, and :class:`~yolo_stable.guard.fused.FusedStep`, which derives from it
and has kernels in ``sgd.py`` and ``musgd.py``. But for a restored state (``state.py``), ``loss_scale.py`` alone updates a scaler,
and ``escalation.py`` alone sets a learning rate, for the time of one step (``tests/test_architecture.py``).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from .config import GuardConfig
from .decision import Decision, GuardVerdict, judge_window
from .gradients import each_norm
from .health import non_finite_names
from .loss_scale import LossScale
from .parameter_walk import ParameterWalk
from .reductions import told
from .shares import Shares, module_of, shares
from .wrappers import plain_name


class ReferenceStep:
    """The same operations in the same order as Ultralytics' ``optimizer_step``, with the decision in between.

    With finite gradients the result is equal to stock's bit for bit: unscale, global 2-norm, clip, step, scale update.

    Args:
        model: Its gradients make the norm, and are clipped.
        optimizer: Any ``torch.optim.Optimizer`` whose ``step`` takes no closure.
        scaler: A ``torch.amp.GradScaler`` (or what behaves like one), or None.
        config: Clip limit, largest norm believed, floor of the loss scale.
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
        """Whether the decision on the next window has each module's share of the gradient."""
        self._walk = ParameterWalk()
        self._modules: list[str] = []
        self._parameters: list[nn.Parameter] = []
        self._clipped = 0
        """How many of the parameters, from the first on, are the model's."""
        self._repeated = False
        """Whether the optimizer holds, and steps, a parameter twice."""
        self._strays: list[nn.Parameter] = []
        """Parameters of the model that the optimizer does not hold."""
        self._left: dict[int, Tensor] = {}
        """Gradients of strays at the start of the window, by the parameter's id."""

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loop's loss scaler; a new one starts a new policy."""
        return self._scaler

    @scaler.setter
    def scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        if scaler is None or scaler is not getattr(self, "_scaler", None):
            self.loss_scale = LossScale(self.config.min_scale)
            """The policy for the scaler's scale."""
        self._scaler = scaler

    def run(self) -> Decision:
        """Judge the window's gradients, apply them or not, and drop those that the optimizer holds.

        Returns:
            ``APPLY``, ``CLIP``, ``REJECT_WINDOW`` or ``EMPTY``, with the norm before clipping.

        Syncs: one (reads the norm); with ``measure`` and a scaler one more (its scale).
        """
        parameters = self.parameters()
        grads = [p.grad for p in parameters[: self._clipped] if p.grad is not None]
        others = [p.grad for p in parameters[self._clipped :] if p.grad is not None]
        if not grads and not others:
            return Decision(verdict=GuardVerdict.EMPTY, reason="every micro-batch of the window was rejected")
        scaler = self.enabled_scaler()
        if scaler is not None:
            scaler.unscale_(self.optimizer)
        # As stock: NPUs lack the foreach kernels that the norm would use.
        foreach = False if (grads or others)[0].device.type == "npu" else None
        total = told(get_total_norm(grads, 2.0, foreach=foreach), grads)
        apart = [told(get_total_norm(others, 2.0, foreach=foreach), others)] if others else []
        each = each_norm(grads) if self.measure and grads else []
        if each or apart:
            norm, *norms = to_device_vector([total, *apart, *each], total.device).tolist()
            norm = self.judged(norm, norms[: len(apart)])
            del norms[: len(apart)]
        else:
            norm, norms = float(total), []
        scale = scaler.get_scale() if scaler is not None and self.measure else None
        verdict, reason = judge_window(norm, self.config.max_norm, self.config.reject_norm)
        if verdict is GuardVerdict.REJECT_WINDOW:
            decision = self.reject(norm, reason, scaler)
        else:
            # Below the limit stock multiplies by 1.0; the margin is for its rounding.
            if self.config.max_norm is not None and not (norm <= 0.999 * self.config.max_norm):
                clip_grads_with_norm_(parameters[: self._clipped], self.config.max_norm, total, foreach=foreach)
            # Not scaler.step(): a finite norm says that nothing overflowed, so its own read is saved.
            self.apply()
            if scaler is not None:
                self.loss_scale.applied(scaler)
            decision = Decision(verdict=verdict, reason=reason, norm=norm, layers=self.shares(norms), scale=scale)
        self.drop_gradients(applied=bool(decision))
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
        """Return the parameters of :meth:`named_parameters`; walks again when model or optimizer has others."""
        if not self._walk.is_current(self.optimizer):
            named = list(self.named_parameters())
            self._parameters = [p for _, p in named]
            self._modules = [module_of(name) for name, _ in named]
            self._clipped = sum(1 for _ in self.model.parameters())
            held = [id(p) for group in self.optimizer.param_groups for p in group["params"]]
            known = set(held)
            self._repeated = len(known) < len(held)
            self._strays = [p for p in self._parameters[: self._clipped] if id(p) not in known]
            self._left = {key: left for key, left in self._left.items() if key in set(map(id, self._strays))}
            self._walk.begin(self.model, self.optimizer)
        return self._parameters

    def judged(self, norm: float, apart: list[float]) -> float:
        """Return the norm by which a window is judged: ``norm`` of the clipped gradients, or a bad norm among the others'."""
        wrong = [n for n in apart if judge_window(n, None, self.config.reject_norm)[0] is GuardVerdict.REJECT_WINDOW]
        return wrong[0] if wrong else norm

    def shares(self, norms: list[float]) -> Shares:
        """Return each module's share, by the norms of the clipped gradients in the order of the parameters, if known."""
        if not norms:
            return ()
        parameters = self.parameters()[: self._clipped]
        return shares([m for m, p in zip(self._modules, parameters, strict=False) if p.grad is not None], norms)

    def enabled_scaler(self) -> torch.amp.GradScaler | None:
        """Return the scaler if there is one that scales."""
        return self.scaler if self.scaler is not None and self.scaler.is_enabled() else None

    def drop_gradients(self, *, applied: bool = False) -> None:
        """Drop the gradients that the optimizer holds, and settle those of the strays.

        Args:
            applied: Strays keep what the window has added. If not, they return to its start: a NaN left in one would make every
                later norm NaN.

        Syncs: none.
        """
        self.parameters()
        self.zero()
        for p in self._strays:
            if not applied:
                left = self._left.get(id(p))
                p.grad = None if left is None else left.clone()
            elif p.grad is not None:
                self._left[id(p)] = p.grad.clone()

    def zero(self) -> None:
        """Drop the gradients that the optimizer holds."""
        self.optimizer.zero_grad(set_to_none=True)

    def reject(self, norm: float, reason: str, scaler: torch.amp.GradScaler | None) -> Decision:
        """Name the gradients that are not finite, and update the scaler."""
        culprits = non_finite_names((n, p.grad) for n, p in self.named_parameters() if p.grad is not None)
        if scaler is not None:
            reason += self.loss_scale.rejected(scaler, overflowed=bool(culprits))
        return Decision(verdict=GuardVerdict.REJECT_WINDOW, reason=reason, norm=norm, culprits=culprits)


def to_device_vector(values: list[Tensor], device: torch.device) -> Tensor:
    """Stack one-element tensors of any real dtype and device into one vector, to read them at once.

    Returns:
        A 1-d tensor on ``device``: float64 if any value is, else float32.

    Syncs: none when all tensors are on ``device``.
    """
    dtype = torch.float64 if any(v.dtype == torch.float64 for v in values) else torch.float32
    return torch.stack([v.detach().reshape(()).to(device=device, dtype=dtype) for v in values])
