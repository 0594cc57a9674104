"""Replay: one more pass through the network, with a time limit and without a trace."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from ..guard.reductions import maximum, told
from ..guard.untouched import untouched
from .case import AutopsyCase, doubled
from .symptom import RAISED, Symptom, signs_of


class OutOfTimeError(Exception):
    """The time of an autopsy is up; it never leaves the autopsy."""


NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")
"""Texts of out-of-memory errors; some backends, such as the CPU, have no class for them."""


class Deadline:
    """How much time an autopsy has."""

    def __init__(self, seconds: float | None) -> None:
        self._end = math.inf if seconds is None else time.monotonic() + seconds
        self.met = False
        """Whether something was skipped or stopped for lack of time."""

    @property
    def left(self) -> float | None:
        """Seconds left, >= 0; None: no limit."""
        return None if self._end == math.inf else max(0.0, self._end - time.monotonic())

    def over(self) -> bool:
        """Say whether the time is up, and remember that it was."""
        if time.monotonic() < self._end:
            return False
        self.met = True
        return True

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Stop a forward pass at the next module when the time is up.

        Raises:
            OutOfTimeError: It is.
        """

        def ask(module: nn.Module, args: Any) -> None:
            if self.over():
                raise OutOfTimeError

        handle = register_module_forward_pre_hook(ask)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True, kw_only=True, slots=True)
class ReplayOutcome:
    """Result of a replay."""

    loss: float | None = None
    items: dict[str, float] = field(default_factory=dict)
    norm: float | None = None
    """Of all gradients, unscaled; None without a backward pass."""
    signs: frozenset[str] = frozenset()
    """What was sick, as in :attr:`Symptom.signs`."""
    error: str = ""
    """What the pass raised, or that time was up; then nothing else is known."""

    @property
    def sick(self) -> bool | None:
        """Whether anything was sick; None: not known."""
        return None if self.error else bool(self.signs)


class Replayer:
    """Replays cases, and counts them."""

    def __init__(self, seen: Symptom, deadline: Deadline, *, nan_only: bool = False) -> None:
        self.seen, self.deadline, self.nan_only = seen, deadline, nan_only
        self.replays = 0
        self.errors: list[str] = []
        """Errors of replays, each text once."""

    def play(
        self,
        case: AutopsyCase,
        *,
        backward: bool | None = None,
        precision: str | None = None,
        model: nn.Module | None = None,
        scaled: bool = True,
    ) -> ReplayOutcome:
        """Run a case forward, and backward if the fault needs it.

        Args:
            case: What to run.
            backward: None: as the symptom needs.
            precision: As for :meth:`AutopsyCase.call`.
            model: Another network than the case's.
            scaled: Multiply the loss by training's scale.

        Raises:
            RuntimeError: Memory ran out, in any class (:func:`is_out_of_memory`); nothing else is raised.

        Syncs: one read for the loss, one per loss item that is a tensor, one or two for buffers and gradients.
        """
        if self.deadline.over():
            return ReplayOutcome(error="out of time")
        self.replays += 1
        try:
            network = model or case.model
            if precision == "float64":
                network = doubled(network)  # here, so that its gradients and buffers can be inspected
            with untouched(network, case.images.device), torch.enable_grad(), self.deadline.inside():
                return self._play(
                    case, self.seen.backward if backward is None else backward, precision, network, scaled
                )
        except OutOfTimeError:
            return ReplayOutcome(error="out of time")
        except Exception as error:
            if is_out_of_memory(error):  # it says nothing about the batch, and the next replay would need as much
                raise
            # After any other error of the network, the autopsy goes on without the answer.
            text = error_in_words(error)
            if text not in self.errors:
                self.errors.append(text)
            if RAISED in self.seen.reason and isinstance(error, (RuntimeError, IndexError)):
                return ReplayOutcome(loss=math.nan, signs=frozenset({"loss"}))  # it is what was seen
            return ReplayOutcome(error=text)

    def sick(self, case: AutopsyCase, **how: Any) -> bool | None:
        """Say whether a case is sick; None: not known."""
        return self.play(case, **how).sick

    def _play(
        self, case: AutopsyCase, backward: bool, precision: str | None, network: nn.Module, scaled: bool
    ) -> ReplayOutcome:
        parameters = [p for p in network.parameters() if p.requires_grad]
        for p in parameters:
            p.grad = None
        buffers = [b for b in network.buffers() if b.is_floating_point() and b.numel()]
        watched = math.isfinite(self.seen.max_jump)
        before = [b.detach().clone() for b in buffers] if watched else []
        with _held_elsewhere(precision, backward, case.images.device):
            loss, items = case.call(precision, network if network is not case.model else None)
        total = loss.sum()
        value = float(total.detach())
        numbers = {k: float(v.detach() if isinstance(v, Tensor) else v) for k, v in items.items()}
        signs = set(signs_of(value, numbers, buffers=self._bad(buffers), nan_only=self.nan_only))
        if watched and _jump(before, buffers) > self.seen.max_jump:
            signs.add("jump")
        norm = None
        if backward:
            scale = self.seen.scale if scaled and precision is None else 1.0
            (total * scale).backward()
            norm = _norm([p.grad for p in parameters if p.grad is not None]) / scale
            if norm != norm or (norm == math.inf and not self.nan_only):
                signs.add("gradients")
            elif norm > self.seen.max_norm:
                signs.add("norm")
        return ReplayOutcome(loss=value, items=numbers, norm=norm, signs=frozenset(signs))

    def _bad(self, buffers: list[Tensor]) -> list[str]:
        """Return one word if a buffer is not finite."""
        if not buffers:
            return []
        bad = [(b != b).any() if self.nan_only else ~b.isfinite().all() for b in buffers]
        return ["buffers"] if bool(torch.stack(bad).any()) else []


def _held_elsewhere(precision: str | None, backward: bool, device: torch.device) -> AbstractContextManager[Any]:
    """Keep a pass in a wider precision from using more device memory than training does."""
    if precision is None:
        return nullcontext()
    if not backward:
        return torch.no_grad()
    return nullcontext() if device.type == "cpu" else torch.autograd.graph.save_on_cpu()


def _jump(before: list[Tensor], after: list[Tensor]) -> float:
    ratios = [maximum(new.abs() / (old.abs() + 1)) for old, new in zip(before, after, strict=True)]
    return max((float(ratio) for ratio in ratios), default=0.0)


def _norm(gradients: list[Tensor]) -> float:
    if not gradients:
        return 0.0
    norms = torch._foreach_norm([g.detach() for g in gradients], 2.0)
    return float(told(torch.linalg.vector_norm(torch.stack([n.float() for n in norms])), gradients))


def error_in_words(error: BaseException) -> str:
    """Return an error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means a lack of memory, on the host or on a device."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)
