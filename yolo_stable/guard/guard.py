"""StepGuard: the guard around any PyTorch training loop."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import InvalidCallError
from .buffers import BufferShadow
from .config import GuardConfig
from .decision import NO_GRADIENT, Decision, GuardVerdict, judge_jump, judge_micro_batch
from .escalation import Escalation
from .graph import free_graph
from .health import non_finite_names
from .limits import Counts, halted, limit_passed
from .loss_items import tensors_among
from .memory import Memory
from .ranks import Ranks, backward_nan
from .recent import RecentWindows
from .recovery import Recovery
from .reductions import try_out
from .rehearsal import choose_step
from .state import TrainingState
from .step import to_device_vector
from .witness import Again


class StepGuard:
    """Apply healthy batches whole, and leave no trace of bad ones.

    A micro-batch is one forward and backward pass; a window is the micro-batches accumulated into one optimizer step.
    :meth:`backward` replaces ``loss.backward()``; :meth:`step` replaces clipping, ``optimizer.step()``, ``scaler.update()`` and
    ``zero_grad()``. Update an EMA only after an applied step:

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

    A rejection undoes parameters, gradients, optimizer state, running statistics of normalisation layers, loss scale, and what
    the loss keeps from batch to batch (``memory``). It leaves the random number generators: a rejected batch has drawn its
    numbers.

    With ``snapshot_every`` the guard keeps copies of the whole healthy state in memory. It restores one when something other than
    a batch ruins the state, or when training diverges. Give ``ema=`` then, and call :meth:`settle` after each EMA update.

    Under ``DistributedDataParallel`` a rank that leaves out a backward pass hangs the others. There the guard back-propagates a
    bad micro-batch as NaN: all ranks share these gradients and reject the window, without a collective of our own. The guard
    never uses a process group that does not train this model.

    Args:
        model: The trained module. Change its running statistics yourself only between windows, then call :meth:`resync`.
        optimizer: Any optimizer whose ``step`` takes no closure.
        scaler: The loop's ``GradScaler``, or None.
        ema: The averaged model: a module, or an object with the module as ``ema`` and a counter ``updates``; None without one.
        schedules: Objects with ``state_dict()`` and ``load_state_dict()`` of plain values that follow the loop, by name.
        memory: Objects beside the model that keep something from batch to batch, by name, such as ``{"loss": criterion}``:
            running means in attributes, lists, dictionaries, tensors, arrays. The guard finds the model's own ``criterion``
            itself. A loop that changes such an object calls :meth:`before_forward` afterwards.
        switch_precision: Switches the loop to the next safer precision and returns its name; returns None when there is none.
        on_reject: Called with each rejection that counts, after it was undone and before any rollback because of it.
        on_escalation: Called after an EMA repair, a rollback or a switch of precision, and before training halts.
        tell: Called once for each part of the memory that cannot be copied; None: Python's warnings.
        distributed: Whether other ranks train this model too. None: if ``DistributedDataParallel`` or FSDP wraps it. Give
            True, or their process group, for a loop that exchanges gradients by its own means.
        again: Computes the unscaled loss (one element) of the micro-batch last given to :meth:`backward` once more, with the
            weights that the model then has: ``lambda: loss_of(model(x), y)``. A loss that is next to nothing where the model
            finds nothing, as a detector's, returns a pair: the loss, and the share found, in [0, 1]. The guard calls it when
            loss or norm have been out of line for ``patience`` steps, with the weights of now and of an older snapshot: only
            this tells a divergence from harder data. It leaves random numbers and running statistics unchanged. None: only a
            rise that no data can cause (loss or norm 1e8 times above their lowest baseline) is a divergence.
        config: All settings; or give them by name.
        **settings: Fields of :class:`GuardConfig`, such as ``max_norm=5.0``.

    Raises:
        InvalidCallError: An unknown setting, a value that is not allowed, or a device that loses NaN in every check.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        scaler: torch.amp.GradScaler | None = None,
        ema: Any = None,
        schedules: Mapping[str, Any] | None = None,
        memory: Mapping[str, Any] | None = None,
        switch_precision: Callable[[], str | None] | None = None,
        on_reject: Callable[[Decision], None] | None = None,
        on_escalation: Callable[[Escalation], None] | None = None,
        tell: Callable[[str], None] | None = None,
        distributed: bool | dist.ProcessGroup | None = None,
        again: Again | None = None,
        config: GuardConfig | None = None,
        **settings: Any,
    ) -> None:
        if config is not None and settings:
            raise InvalidCallError(f"Give config= or single settings ({', '.join(settings)}), not both.")
        if switch_precision is not None and not callable(switch_precision):
            raise InvalidCallError(
                f"switch_precision={switch_precision!r} is not allowed. It must be a function that switches the loop to the next"
                " safer precision; whether it is asked is the setting lower_precision."
            )
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InvalidCallError("StepGuard cannot guard LBFGS: its step calls the model several times by a closure.")
        self.config = config if config is not None else GuardConfig.from_mapping(settings)
        self.doubted = try_out([*model.parameters(), *model.buffers()])
        """Devices and dtypes whose norms lose NaN: there the guard asks ``isfinite``; see `reductions`."""
        self.counts, self._recent = Counts(), RecentWindows()
        self.last: Decision | None = None
        """The last decision, also when it raised."""
        self.ranks = Ranks(model, distributed)
        self.shadow = BufferShadow(model) if self.config.batchnorm else None
        self._step, self.step_name = choose_step(model, optimizer, scaler, self.config)
        """The step in words, with the reason when it is not the fused one."""
        self.memory = Memory(model, memory, tell or _warn)
        self.memory.optimizer = optimizer
        self.state = TrainingState(
            model,
            optimizer,
            scaler=scaler,
            ema=ema,
            schedules=schedules,
            counters=lambda: {"guard": self.state_dict()},
            memory=self.memory,
        )
        """Everything that training reads and writes, as snapshots and files keep it."""
        self.recovery: Recovery | None = None
        """Snapshots and escalation; None without ``snapshot_every``."""
        self._on_reject = on_reject
        self._losses: list[float] = []
        if self.config.snapshot_every is not None:
            act = self.abandon_window, self._resync, switch_precision, on_escalation
            self.recovery = Recovery(
                self.state, self.config, self.counts, self._recent, *act, ranks=self.ranks, again=again
            )
            self.recovery.begin()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The loop's optimizer; can be replaced between windows."""
        return self._step.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        loss_scale = self._step.loss_scale
        self._step, self.step_name = choose_step(self._step.model, optimizer, self.scaler, self.config)
        self._step.loss_scale = loss_scale  # the scaler has stayed
        self.state.optimizer = self.memory.optimizer = optimizer

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loop's loss scaler; can be replaced between windows."""
        return self._step.scaler

    @scaler.setter
    def scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        self._step.scaler = self.state.scaler = scaler

    def before_forward(self) -> None:
        """Begin a micro-batch: a rejection restores what the memory holds now.

        Without this call it restores what the previous micro-batch or step left, and so undoes what the loop has changed since,
        such as a schedule of the loss.

        Syncs: none.
        """
        self.memory.before_forward()

    def backward(
        self,
        loss: Tensor,
        items: Mapping[str, Tensor | float] | None = None,
        *,
        fault: str = "",
        of_one_scale: Callable[[], bool] | None = None,
    ) -> Decision:
        """Check a micro-batch after its forward pass, then back-propagate it or undo it.

        Args:
            loss: The loss, one element, not yet scaled. One that needs no gradient is rejected.
            items: Its parts by name; checked with it and returned as numbers, without a further read.
            fault: What the caller already knows to be wrong with the batch; rejects the micro-batch unless empty.
            of_one_scale: Tells whether all inputs of the batch have one scale. Asked when running statistics jump before any
                micro-batch was accepted: statistics from elsewhere may not fit the scale of these data.

        Returns:
            ``BACKWARD`` (true) or ``REJECT_MICRO_BATCH`` (false).

        Raises:
            InvalidCallError: ``loss`` or an item is a tensor that has not exactly one element.
            TrainingHaltedError: Too many rejections.

        Syncs: one (reads loss, items and the state of the buffers together).
        """
        items = dict(items or {})
        tensors = tensors_among(loss, items)
        self.ranks.forward_seen()
        if self.ranks.shared and self.recovery is not None and self.recovery.wish:
            fault = fault or self.recovery.wish
        copy, moved = self.shadow.capture() if self.shadow is not None else (None, [])
        vector = to_device_vector([loss, *tensors.values(), *moved], loss.device)
        value, *others = vector.tolist()
        on_device = dict(zip(tensors, others, strict=False))
        read = {name: on_device[name] if name in on_device else float(item) for name, item in items.items()}
        jumps = others[len(tensors) :]
        verdict, reason = judge_micro_batch(value, read, all(map(math.isfinite, jumps)), fault)
        jumped = False
        if verdict is GuardVerdict.BACKWARD:
            verdict, reason = judge_jump(max(jumps, default=0.0), self.config.max_jump, self.counts.jumps)
            nothing_known = self.counts.micro_batches == self.counts.rejected_micro_batches
            if verdict is not GuardVerdict.BACKWARD and nothing_known and of_one_scale is not None and of_one_scale():
                verdict = GuardVerdict.BACKWARD
            jumped = verdict is not GuardVerdict.BACKWARD
        if verdict is GuardVerdict.BACKWARD and not loss.requires_grad:
            verdict, reason = GuardVerdict.REJECT_MICRO_BATCH, NO_GRADIENT
        if verdict is GuardVerdict.BACKWARD:
            self.counts.jumps = 0
            self._backward(loss, copy)
            self._losses.append(sum(read.values()) if read else value)
            return self._record(Decision(verdict=verdict, loss=value, items=read))

        self.counts.jumps += jumped
        culprits: tuple[str, ...] = ()
        if self.shadow is not None and copy is not None:
            culprits = (self.shadow.largest_jump(copy),) if jumped else non_finite_names(self.shadow.named())
        decision = Decision(verdict=verdict, reason=reason, loss=value, items=read, culprits=culprits)
        all_reject = self.ranks.shared
        if all_reject:
            trained = [p for _, p in self._step.named_parameters() if p.requires_grad]
            if not loss.requires_grad:  # the others wait for all gradients of this one
                loss = torch.stack([p.reshape(-1)[0].float() for p in trained]).sum()
            backward_nan(self._scaled(loss), trained)
        else:
            free_graph([loss], self._step.parameters())
        if self.shadow is not None and copy is not None:
            self.shadow.reject(copy)  # not earlier: a backward pass needs the buffers as the forward pass left them
        self.memory.reject()
        if all_reject:  # the window's rejection is the one that counts, the same on all ranks
            self.counts.micro_batches += 1
            self.last = decision
            return decision
        return self._record(decision)

    def step(self, *, measure: bool = False) -> Decision:
        """Check the window's gradients, then clip and apply them or undo the window; either way, drop the gradients.

        A window whose micro-batches were accepted, and gave no parameter a gradient, is rejected: nothing would be learned.

        Args:
            measure: Also return each module's share of the gradient, and the loss scale. The fused step reads them with the
                norm; the reference step computes the norms of all gradients once more.

        Returns:
            ``APPLY`` or ``CLIP`` (true), ``REJECT_WINDOW`` or ``EMPTY`` (false), with the norm before clipping.

        Raises:
            TrainingHaltedError: Too many rejections.

        Syncs: one (reads the norm).
        """
        recovery = self.recovery
        with nullcontext() if recovery is None else recovery.lr_backoff.on(self.optimizer):
            self._step.measure = measure
            decision = self._step.run()
        losses, self._losses = self._losses, []
        if decision.verdict is GuardVerdict.EMPTY and losses:
            decision = Decision(verdict=GuardVerdict.REJECT_WINDOW, reason=NO_GRADIENT, norm=0.0)
        for part in self._undoable():
            if decision.verdict is GuardVerdict.REJECT_WINDOW:
                part.undo_window()
            else:
                part.commit()
        if recovery is not None and decision:
            self._record(decision)
            if why := recovery.after_step(sum(losses) / len(losses) if losses else None, decision.norm):
                self.last = decision = Decision(verdict=GuardVerdict.ROLL_BACK, reason=why, norm=decision.norm)
            return decision
        return self._record(decision)

    def settle(self) -> None:
        """Take a snapshot when one is due; call it after the EMA's update. Does nothing without ``snapshot_every``.

        If the state is not healthy, this restores it instead: the EMA alone, or all of it.

        Raises:
            TrainingHaltedError: The state is not healthy, and nothing is left to try.

        Syncs: one per device and dtype, every ``snapshot_every`` steps.
        """
        if self.recovery is not None:
            self.recovery.settle()

    def inspect(self) -> bool:
        """Audit the whole state now, as before a validation or a save, and restore it if it is not healthy.

        Returns:
            Whether the state is healthy; always true without ``snapshot_every``, which audits nothing.

        Raises:
            TrainingHaltedError: The state is not healthy, and nothing is left to try.

        Syncs: one per device and dtype.
        """
        return self.recovery is None or self.recovery.inspect()

    def abandon_window(self) -> None:
        """Undo a window that will not be finished, as after running out of memory; count nothing."""
        self._losses = []
        self._step.drop_gradients()
        for part in self._undoable():
            part.undo_window()

    def resync(self) -> None:
        """Accept the state as it is now as healthy, after a change from outside (a load); start new snapshots."""
        self._resync()
        if self.recovery is not None:
            self.recovery.begin()

    def state_dict(self) -> dict[str, Any]:
        """Return the counters and the state of recovery and loss scale; the rest is in model, optimizer and scaler."""
        state: dict[str, Any] = {"counts": self.counts.to_dict()}
        if self._step.enabled_scaler() is not None:
            state["loss_scale"] = self._step.loss_scale.state_dict()
        if self.recovery is not None:
            state.update(self.recovery.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; a new window begins with the model as it is.

        Raises:
            InvalidCallError: ``state`` is not what :meth:`state_dict` returned.
        """
        counts = state.get("counts") if isinstance(state, Mapping) else None
        Counts().load(counts)  # refuses before anything is changed
        if "loss_scale" in state:
            self._step.loss_scale.load_state_dict(state["loss_scale"])
        if self.recovery is not None and "brake" in state:  # files keep the key of the learning-rate backoff
            self.recovery.load_state_dict(state)
        self.counts.load(counts)
        self.resync()

    def _resync(self) -> None:
        for part in self._undoable():
            part.resync()

    def _undoable(self) -> list[BufferShadow | Memory]:
        """Return what a forward pass writes to."""
        return [self.memory] if self.shadow is None else [self.shadow, self.memory]

    def _backward(self, loss: Tensor, copy: Any) -> None:
        """Back-propagate a healthy micro-batch and keep what its forward pass wrote."""
        shadow = self.shadow
        versions = shadow.versions() if shadow is not None else []
        self._scaled(loss).backward()
        if shadow is not None:
            if shadow.versions() != versions:  # gradient checkpointing ran the forward pass again, BatchNorm included
                shadow.recapture(copy)
            shadow.accept(copy)
        self.memory.accept()

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _record(self, decision: Decision) -> Decision:
        self.counts.add(decision)
        self._recent.add(decision)
        self.last = decision
        if decision.rejected and self._on_reject is not None:
            self._on_reject(decision)
            self.memory.settle()
        if decision.rejected and self.recovery is not None:
            self.recovery.after_rejection(decision)
        elif decision.rejected and (passed := limit_passed(self.counts, self._recent, self.config)):
            raise halted(self.counts, passed.reason, passed.advice, decision)
        return decision


def _warn(what: str) -> None:
    warnings.warn(what, stacklevel=2)
