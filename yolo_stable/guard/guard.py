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
from .decision import Decision, Verdict, judge_jump, judge_micro_batch
from .graph import free_graph
from .health import non_finite_names
from .items import tensors_among
from .ladder import Climb
from .limits import Counts, halted, limit_passed
from .memory import Memory
from .ranks import Ranks, backward_nan
from .recent import Recent
from .recovery import Recovery
from .reductions import try_out
from .rehearsal import choose_step
from .state import TrainingState
from .step import to_device_vector
from .witness import Again


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

    What is undone: parameters, gradients, optimizer state, running statistics of normalisation layers, loss scale, and what
    the loss keeps from batch to batch (``memory``). The random number generators are not: a rejected batch has drawn its numbers.

    With ``snapshot_every``, copies of the whole healthy state are kept in memory, and put back when it is ruined by something
    that no batch brought in, or when training diverges. Give ``ema=`` then, and call :meth:`settle` after the EMA was updated.

    Under ``DistributedDataParallel`` a rank must not leave out a backward pass, or the others wait for ever. There a bad
    micro-batch is back-propagated as NaN: the gradients that all ranks share then say the same to every one of them, and
    all reject the window, without a collective of our own. A process group that does not train this model is never used.

    Args:
        model: The module that is trained. Change its running statistics yourself only between windows, and call
            :meth:`resync` then.
        optimizer: Any optimizer whose ``step`` takes no closure.
        scaler: The loop's ``GradScaler``, if it has one.
        ema: The averaged model, if there is one: a module, or an object with the module as ``ema`` and a counter ``updates``.
        schedules: Objects with ``state_dict()`` and ``load_state_dict()`` of plain values that follow the loop, by name.
        memory: Objects beside the model that keep something from batch to batch, by name, such as ``{"loss": criterion}``:
            running means and the like, as attributes, lists, dictionaries, tensors, arrays. What the model's own ``criterion``
            keeps is found without. A loop that changes it itself calls :meth:`before_forward` then.
        lower_precision: Makes the loop compute in the next safer precision and returns its name; None when there is none. True
            or False is the setting of this name.
        on_reject: Told of every rejection that counts, after it was undone, and before anything is put back because of it.
        on_climb: Told when the state was put back, the precision lowered, or training is about to halt.
        tell: Told once of each part of the memory that cannot be copied; None: Python's warnings.
        distributed: Whether other ranks train this model too. None: when ``DistributedDataParallel`` or FSDP wraps it. Give
            True, or their process group, to a loop that exchanges gradients by its own means.
        again: Computes the loss of the micro-batch that was given to :meth:`backward` last once more, as one element, not
            scaled, with the weights that the model then has: ``lambda: loss_of(model(x), y)``; or a pair of it and how much
            of what it is about was found, in [0, 1], when it is next to nothing where nothing is, as a detector's. It is called
            when loss or norm have been out of line for ``patience`` steps, with the weights of now and with those of an older
            snapshot; only this tells a divergence from data that are harder than those before. Random numbers and running
            statistics are as before afterwards. None: only what no data can do (loss or norm 1e8 times above their lowest
            level) is a divergence.
        config: All settings; or give them by name.
        **settings: Fields of :class:`GuardConfig`, such as ``max_norm=5.0``.

    Raises:
        InvalidCallError: An unknown setting or a value that is not allowed; a device that loses NaN in every check there is.
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
        lower_precision: Callable[[], str | None] | bool | None = None,
        on_reject: Callable[[Decision], None] | None = None,
        on_climb: Callable[[Climb], None] | None = None,
        tell: Callable[[str], None] | None = None,
        distributed: bool | dist.ProcessGroup | None = None,
        again: Again | None = None,
        config: GuardConfig | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(lower_precision, bool):  # the setting has the name of the action
            settings["lower_precision"], lower_precision = lower_precision, None
        if config is not None and settings:
            raise InvalidCallError(f"Give config= or single settings ({', '.join(settings)}), not both.")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise InvalidCallError("StepGuard cannot guard LBFGS: its step calls the model several times by a closure.")
        self.config = config if config is not None else GuardConfig.from_mapping(settings)
        self.doubted = try_out([*model.parameters(), *model.buffers()])
        """Devices and dtypes whose norms lose NaN, so that health is asked by ``isfinite`` there; see `reductions`."""
        self.counts, self._recent = Counts(), Recent()
        self.last: Decision | None = None
        """The decision made last, also when it raised."""
        self.ranks = Ranks(model, distributed)
        """The other processes that train this model."""
        self.shadow = BufferShadow(model) if self.config.batchnorm else None
        self._step, self.step_name = choose_step(model, optimizer, scaler, self.config)
        """How windows are applied, in words."""
        self.memory = Memory(model, memory, tell or _warn)
        self.memory.optimizer = optimizer
        """What the loss keeps from batch to batch."""
        whole = {
            "memory": self.memory,
            "scaler": scaler,
            "ema": ema,
            "schedules": schedules,
            "counters": lambda: {"guard": self.state_dict()},
        }
        self.state = TrainingState(model, optimizer, **whole)
        """Everything that training reads and writes, as snapshots and files keep it."""
        self.recovery: Recovery | None = None
        """Snapshots and the ladder; None without ``snapshot_every``."""
        self._on_reject = on_reject
        self._losses: list[float] = []
        if self.config.snapshot_every is not None:
            act = self.abandon_window, self._resync, lower_precision, on_climb
            self.recovery = Recovery(
                self.state, self.config, self.counts, self._recent, *act, ranks=self.ranks, again=again
            )
            self.recovery.begin()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The loop's optimizer; may be exchanged between windows."""
        return self._step.optimizer

    @optimizer.setter
    def optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        loss_scale = self._step.loss_scale
        self._step, self.step_name = choose_step(self._step.model, optimizer, self.scaler, self.config)
        self._step.loss_scale = loss_scale  # the scaler has stayed
        self.state.optimizer = self.memory.optimizer = optimizer

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loop's loss scaler; may be exchanged between windows."""
        return self._step.scaler

    @scaler.setter
    def scaler(self, scaler: torch.amp.GradScaler | None) -> None:
        self._step.scaler = self.state.scaler = scaler

    def before_forward(self) -> None:
        """Say that a micro-batch begins: what the memory holds now is what a rejection puts back.

        Without it that is what the micro-batch before has left, or the last step, and a change that the loop has made since,
        as by a schedule of the loss, is undone with a rejected micro-batch.

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
            loss: What is back-propagated, one element, not yet scaled.
            items: Its parts by name; checked with it and returned as numbers, so that no further read is needed.
            fault: What the caller already knows to be wrong with the batch; not empty, the micro-batch is rejected.
            of_one_scale: Tells whether the inputs of the batch are of one size. Asked when running statistics jump before any
                micro-batch was accepted: they have come from elsewhere, and then it is the data that are of another scale.

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
        if verdict is Verdict.BACKWARD:
            verdict, reason = judge_jump(max(jumps, default=0.0), self.config.max_jump, self.counts.jumps)
            nothing_known = self.counts.micro_batches == self.counts.rejected_micro_batches
            if verdict is not Verdict.BACKWARD and nothing_known and of_one_scale is not None and of_one_scale():
                verdict = Verdict.BACKWARD
            jumped = verdict is not Verdict.BACKWARD
        if verdict is Verdict.BACKWARD:
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
            backward_nan(self._scaled(loss), [p for _, p in self._step.named_parameters() if p.requires_grad])
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
        """Check the window's gradients, then clip and apply them or undo the window; gradients are gone afterwards.

        Args:
            measure: Also say which modules the gradient comes from, and the loss scale. With the fused step that is read
                together with the norm; the reference step takes the norms of all gradients once more for it.

        Returns:
            ``APPLY`` or ``CLIP`` (true), ``REJECT_WINDOW`` or ``EMPTY`` (false), with the norm before clipping.

        Raises:
            TrainingHaltedError: Too many rejections.

        Syncs: one (reads the norm).
        """
        recovery = self.recovery
        with nullcontext() if recovery is None else recovery.brake.on(self.optimizer):
            self._step.measure = measure
            decision = self._step.run()
        losses, self._losses = self._losses, []
        for part in self._undoable():
            if decision.verdict is Verdict.REJECT_WINDOW:
                part.rollback()
            else:
                part.commit()
        if recovery is not None and decision:
            self._record(decision)
            if why := recovery.after_step(sum(losses) / len(losses) if losses else None, decision.norm):
                self.last = decision = Decision(verdict=Verdict.ROLL_BACK, reason=why, norm=decision.norm)
            return decision
        return self._record(decision)

    def settle(self) -> None:
        """Keep the state as a snapshot when it is time to, after the EMA has followed the step; needs ``snapshot_every``.

        A state that is not healthy is put right instead: the EMA alone, or all of it.

        Raises:
            TrainingHaltedError: It is not healthy, and nothing is left to try.

        Syncs: one per device and dtype, every ``snapshot_every`` steps.
        """
        if self.recovery is not None:
            self.recovery.settle()

    def inspect(self) -> bool:
        """Look at the whole state now, as before a validation or a save, and put it right when it is not healthy.

        Returns:
            Whether it is healthy; always true without ``snapshot_every``, when nothing is looked at.

        Raises:
            TrainingHaltedError: It is not healthy, and nothing is left to try.

        Syncs: one per device and dtype.
        """
        return self.recovery is None or self.recovery.inspect()

    def abandon_window(self) -> None:
        """Undo a window that was begun and will not be finished, as after running out of memory; counts nothing."""
        self._losses = []
        self._step.drop_gradients()
        for part in self._undoable():
            part.rollback()

    def resync(self) -> None:
        """Take the state as it is now for healthy, after it was changed from outside (a load): the snapshots begin anew."""
        self._resync()
        if self.recovery is not None:
            self.recovery.begin()

    def state_dict(self) -> dict[str, Any]:
        """Return counters and what the ladder and the loss scale remember; all else is in model, optimizer and scaler."""
        state: dict[str, Any] = {"counts": self.counts.to_dict()}
        if self._step.enabled_scaler() is not None:
            state["loss_scale"] = self._step.loss_scale.state_dict()
        if self.recovery is not None:
            state.update(self.recovery.state_dict())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue with the counters of :meth:`state_dict`; a new window begins with the model as it is.

        Raises:
            InvalidCallError: ``state`` is not what :meth:`state_dict` returned.
        """
        counts = state.get("counts") if isinstance(state, Mapping) else None
        Counts().load(counts)  # refuses before anything is changed
        if "loss_scale" in state:
            self._step.loss_scale.load_state_dict(state["loss_scale"])
        if self.recovery is not None and "brake" in state:
            self.recovery.load_state_dict(state)
        self.counts.load(counts)
        self.resync()

    def _resync(self) -> None:
        for part in self._undoable():
            part.resync()

    def _undoable(self) -> list[BufferShadow | Memory]:
        """Return what forward passes write to."""
        return [self.memory] if self.shadow is None else [self.shadow, self.memory]

    def _backward(self, loss: Tensor, copy: Any) -> None:
        """Back-propagate a healthy micro-batch and keep what its forward pass wrote."""
        shadow = self.shadow
        versions = shadow.versions() if shadow is not None else []
        self._scaled(loss).backward()
        if shadow is not None:
            if shadow.versions() != versions:  # gradient checkpointing runs forward once more, and BatchNorm with it
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
