"""Step metrics: follows every optimizer step, and records each N-th.

A step in between costs a few additions of numbers that the host already has. Only the N-th step reads more: the shares of the
modules, together with its norm.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .._shared.process_memory import HeldMemory
from ..guard import Decision, GuardVerdict, StepGuard
from .step_record import StepRecord, clip_factor, interval
from .stopwatch import Stopwatch
from .warning_rules import Caution, Span
from .watch import WarningWatch

APPLIED = frozenset({GuardVerdict.APPLY, GuardVerdict.CLIP})


class StepMetrics:
    """Follows a run and records every N-th applied step.

    Args:
        every: ``guard.telemetry_every``.
        limit: ``guard.warn_norm``.
        max_norm: ``guard.max_norm``.
        device: The device that trains.
        proportional: See :class:`WarningWatch`.
    """

    def __init__(
        self,
        every: int,
        limit: float | None,
        max_norm: float | None,
        device: torch.device,
        *,
        proportional: bool = True,
    ) -> None:
        self.every, self.max_norm = every, max_norm
        self.clock = Stopwatch()
        self.watch = WarningWatch(limit, max_norm, proportional=proportional)
        self._limit = float("inf") if limit is None else limit
        self._memory = HeldMemory(device)
        self._items: Mapping[str, float] = {}
        self._rates: tuple[float, ...] = ()
        self._rollbacks = 0
        self._begin_span()

    def before_step(self, guard: StepGuard) -> bool:
        """Return whether the next applied step will be recorded; if so, note its learning rates as the optimizer gets them."""
        applied = guard.counts.applied
        if (applied + 1) % interval(applied, self.every):
            return False
        if guard.counts.rollbacks != self._rollbacks:
            self._rollbacks = guard.counts.rollbacks
            self.watch.forget()
        backoff = 1.0 if guard.recovery is None else guard.recovery.lr_backoff.factor
        self._rates = tuple(float(group["lr"]) * backoff for group in guard.optimizer.param_groups if "lr" in group)
        return True

    def add(self, decision: Decision) -> None:
        """Add the numbers of one decision."""
        if decision.verdict is GuardVerdict.BACKWARD:
            self._items = decision.items
        elif decision.verdict in APPLIED and decision.norm is not None:
            norm = decision.norm
            self._steps += 1
            self._total += norm
            self._over += norm > self._limit
            self._largest = max(self._largest, norm)

    def record(
        self, decision: Decision, *, batch: int, step: int, warm_up: bool
    ) -> tuple[StepRecord, list[Caution]] | None:
        """Return the record of a step for which :meth:`before_step` was true, and its warnings.

        Args:
            decision: On that window, measured; already added.
            batch: From 1, within the epoch.
            step: Optimizer steps applied, this one included.
            warm_up: Whether the learning rate still rises.

        Returns:
            None if the window was not applied; then the next one will be recorded.
        """
        if decision.verdict not in APPLIED or decision.norm is None:
            return None
        span = Span(self._steps, self._over, self._total, self._largest)
        record = StepRecord(
            batch=batch,
            step=step,
            loss=self._items,
            norm=decision.norm,
            clip=clip_factor(decision.norm, self.max_norm),
            lr=self._rates,
            scale=decision.scale,
            seconds=self.clock.take() / max(span.steps, 1),
            memory=self._memory.read(),
            layers=decision.layers,
        )
        self._begin_span()
        return record, self.watch.add(record, span, warm_up=warm_up)

    def _begin_span(self) -> None:
        self._steps = self._over = 0
        self._total = self._largest = 0.0
