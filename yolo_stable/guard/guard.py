"""StepGuard: the guard around any PyTorch training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InvalidCallError
from .buffers import BufferShadow
from .config import GuardConfig
from .decision import Decision, Verdict, judge_jump, judge_micro_batch
from .health import non_finite_names
from .limits import Counts, check_limits
from .rehearsal import choose_step
from .step import to_device_vector


class StepGuard:
    """Apply healthy batches whole, and leave no trace of bad ones.

    A micro-batch is one forward and backward pass; a window is what is accumulated into one optimizer step. Put
    :meth:`backward` where ``loss.backward()`` stood and :meth:`step` where clipping, ``optimizer.step()``,
    ``scaler.update()`` and ``zero_grad()`` stood, and update an EMA only when a step was applied:

        >>> import torch
        >>> from yolo_stable.guard import StepGuard
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
        >>> ema = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        >>> guard = StepGuard(model, optimizer, max_norm=10.0)
        >>> def train_one_epoch(loader, accumulate=2):
        ...     for i, x in enumerate(loader, start=1):
        ...         loss = model(x).square().mean()
        ...         guard.backward(loss)  # a bad micro-batch is undone, not back-propagated
        ...         if i % accumulate == 0 and guard.step():  # a bad window is undone, not applied
        ...             ema.update_parameters(model)
        >>> bad = torch.full((8, 2), float("nan"))
        >>> train_one_epoch([torch.randn(8, 2), torch.randn(8, 2), bad, torch.randn(8, 2)])
        >>> guard.counts.rejected_micro_batches, guard.counts.applied
        (1, 2)
        >>> all(bool(v.isfinite().all()) for v in ema.state_dict().values())
        True

    What is undone: parameters, gradients, optimizer state, running statistics of normalisation layers, loss scale. The
    random number generators are not: a rejected batch has drawn its numbers.

    Under ``DistributedDataParallel`` a rank must not leave out a backward pass, or the others wait for ever. There a bad
    micro-batch is back-propagated as NaN: the gradients that all ranks share then say the same to every one of them, and
    all reject the window, without a collective of our own.

    Args:
        model: The module that is trained. Change its running statistics yourself only between windows, and call
            :meth:`resync` then.
        optimizer: Any optimizer whose ``step`` takes no closure.
        scaler: The loop's ``GradScaler``, if it has one.
        config: All settings; or give them by name.
        **settings: Fields of :class:`GuardConfig`, such as ``max_norm=5.0``.

    Raises:
        InvalidCallError: An unknown setting or a value that is not allowed.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        scaler: torch.amp.GradScaler | None = None,
        config: GuardConfig | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            raise InvalidCallError(f"Give config= or single settings ({', '.join(settings)}), not both.")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InvalidCallError("StepGuard cannot guard LBFGS: its step calls the model several times by a closure.")
        self.config = config if config is not None else GuardConfig.from_mapping(settings)
        self.counts = Counts()
        self.last: Decision | None = None
        """The decision made last, also when it raised."""
        self.shadow = BufferShadow(model) if self.config.batchnorm else None
        self._step, self.step_name = choose_step(model, optimizer, scaler, self.config)
        """How windows are applied, in words."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The loop's optimizer; may be exchanged between windows."""
        return self._step.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        loss_scale = self._step.loss_scale
        self._step, self.step_name = choose_step(self._step.model, optimizer, self.scaler, self.config)
        self._step.loss_scale = loss_scale  # the scaler has stayed

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loop's loss scaler; may be exchanged between windows."""
        return self._step.scaler

    @scaler.setter
    def scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        self._step.scaler = scaler

    def backward(self, loss: Tensor, items: Mapping[str, Tensor | float] | None = None, *, fault: str = "") -> Decision:
        """Check a micro-batch after its forward pass, then back-propagate it or undo it.

        Args:
            loss: What is back-propagated, one element, not yet scaled.
            items: Its parts by name; checked with it and returned as numbers, so that no further read is needed.
            fault: What the caller already knows to be wrong with the batch; not empty, the micro-batch is rejected.

        Returns:
            ``BACKWARD`` (true) or ``REJECT_MICRO_BATCH`` (false).

        Raises:
            InvalidCallError: ``loss`` or an item is a tensor that has not exactly one element.
            TrainingHaltedError: Too many rejections.

        Syncs: one (reads loss, items and the state of the buffers together).
        """
        if loss.numel() != 1:
            raise InvalidCallError(
                f"StepGuard.backward() takes a loss of one element, not of shape {tuple(loss.shape)}. Reduce it first."
            )
        items = dict(items or {})
        for name, item in items.items():
            if not isinstance(item, (Tensor, int, float)):
                raise InvalidCallError(f"StepGuard.backward() takes numbers as loss items, but {name!r} is {item!r}.")
        tensors = {name: item for name, item in items.items() if isinstance(item, Tensor)}
        for name, item in tensors.items():
            if item.numel() != 1:
                raise InvalidCallError(
                    f"StepGuard.backward() takes loss items of one element, but {name!r} has shape {tuple(item.shape)}."
                )
        copy, moved = self.shadow.capture() if self.shadow is not None else (None, [])
        vector = to_device_vector([loss, *tensors.values(), *moved], loss.device)
        value, *others = vector.tolist()
        on_device = dict(zip(tensors, others, strict=False))
        read = {name: on_device[name] if name in on_device else float(item) for name, item in items.items()}
        jumps = others[len(tensors) :]
        verdict, reason = judge_micro_batch(value, read, all(map(math.isfinite, jumps)), fault)
        jumped = False
        if verdict is Verdict.BACKWARD:
            verdict, reason = judge_jump(max(jumps, default=0.0), self.config.max_jump, self.counts.jumps)
            jumped = verdict is not Verdict.BACKWARD
        if verdict is Verdict.BACKWARD:
            self.counts.jumps = 0
            self._backward(loss, copy)
            return self._record(Decision(verdict=verdict, loss=value, items=read))

        self.counts.jumps += jumped
        culprits: tuple[str, ...] = ()
        if self.shadow is not None and copy is not None:
            culprits = (self.shadow.largest_jump(copy),) if jumped else non_finite_names(self.shadow.named())
        decision = Decision(verdict=verdict, reason=reason, loss=value, items=read, culprits=culprits)
        shared = _shared_gradients()
        if shared:
            self._backward_nan(loss)
        if self.shadow is not None and copy is not None:
            self.shadow.reject(copy)  # not earlier: a backward pass needs the buffers as the forward pass left them
        if shared:  # the window's rejection is the one that counts, the same on all ranks
            self.counts.micro_batches += 1
            self.last = decision
            return decision
        return self._record(decision)

    def step(self) -> Decision:
        """Check the window's gradients, then clip and apply them or undo the window; gradients are gone afterwards.

        Returns:
            ``APPLY`` or ``CLIP`` (true), ``REJECT_WINDOW`` or ``EMPTY`` (false), with the norm before clipping.

        Raises:
            TrainingHaltedError: Too many rejections.

        Syncs: one (reads the norm).
        """
        decision = self._step.run()
        if self.shadow is not None:
            if decision.verdict is Verdict.REJECT_WINDOW:
                self.shadow.rollback()
            else:
                self.shadow.commit()
        return self._record(decision)

    def abandon_window(self) -> None:
        """Undo a window that was begun and will not be finished, as after running out of memory; counts nothing."""
        self._step.drop_gradients()
        if self.shadow is not None:
            self.shadow.rollback()

    def resync(self) -> None:
        """Take the model's buffers as they are now for healthy, after they were changed from outside (a load)."""
        if self.shadow is not None:
            self.shadow.resync()

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, and with a scaler what is known of its scale; all else is in model, optimizer and scaler."""
        state: dict[str, Any] = {"counts": self.counts.to_dict()}
        if self._step.enabled_scaler() is not None:
            state["loss_scale"] = self._step.loss_scale.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the counters of :meth:`state_dict`; a new window begins with the model as it is.

        Raises:
            InvalidCallError: ``state`` is not what :meth:`state_dict` returned.
        """
        counts = state.get("counts") if isinstance(state, Mapping) else None
        valid = self.counts.to_dict()
        if (
            not isinstance(counts, Mapping)
            or set(counts) != set(valid)
            or any(type(value) is not int or value < 0 for value in counts.values())
        ):
            raise InvalidCallError(
                f"This is not the state of a StepGuard: counts={counts!r}. They must be whole numbers of 0 or more named"
                f" {', '.join(valid)}."
            )
        if "loss_scale" in state:
            self._step.loss_scale.load_state_dict(state["loss_scale"])
        self.counts = Counts(**counts)
        self.resync()

    def _backward(self, loss: Tensor, copy: Any) -> None:
        """Back-propagate a healthy micro-batch and keep what its forward pass wrote."""
        shadow = self.shadow
        versions = shadow.versions() if shadow is not None else []
        self._scaled(loss).backward()
        if shadow is not None:
            if shadow.versions() != versions:  # gradient checkpointing runs forward once more, and BatchNorm with it
                shadow.recapture(copy)
            shadow.accept(copy)

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _backward_nan(self, loss: Tensor) -> None:
        """Make every gradient NaN that ``loss`` reaches, also behind clamp() or where(), which turn NaN into zero."""
        parameters = [p for _, p in self._step.named_parameters() if p.requires_grad]
        hooks = [p.register_hook(_to_nan) for p in parameters]
        try:
            self._scaled(loss).backward()
        finally:
            for hook in hooks:
                hook.remove()

    def _record(self, decision: Decision) -> Decision:
        self.counts.add(decision)
        self.last = decision
        if decision.rejected:
            check_limits(self.counts, self.config, decision)
        return decision


def _to_nan(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient * float("nan")  # autograd also asks where there is none


def _shared_gradients() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
