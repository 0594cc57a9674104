"""Stage runner: runs the stages of a preflight in order, with their time, until one fails."""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .._shared.text import one_line
from ..autopsy.advice import Names, named
from ..errors import YoloStableError
from ..guard import StepGuard
from .stage import Preflight, StageOutcome, StageResult, StageVerdict
from .subject import StateBefore, Subject

SAID = 400
"""Characters of an exception's text that are shown."""
FRAMES = 12
"""Innermost frames of an exception that are kept."""


@dataclass(kw_only=True)
class StageContext:
    """What the stages hand on to later ones."""

    subject: Subject
    clock: Clock
    before: StateBefore
    """The state at the start."""
    guard: StepGuard | None = None
    loss: Tensor | None = None
    items: dict[str, Any] = field(default_factory=dict)
    loss_error: Exception | None = None
    """What the loss raised after the network had finished."""
    checkpointed: bool = False
    """Gradient checkpointing warned that no gradient can pass."""
    called: frozenset[str] = frozenset()
    """Names of the modules that the forward pass called."""
    widest: float = 0.0
    """Largest magnitude of any module's output."""
    micro_batches: int = 0
    """Batches whose gradients are in the open window."""
    step_seconds: float = 0.0
    """Forward and backward pass of one batch."""
    norm: float | None = None
    """Of the open window's gradients, unscaled."""


class Clock:
    """How much time there is.

    Args:
        seconds: For everything.
        used: Seconds that were gone before.
    """

    def __init__(self, seconds: float, used: float = 0.0) -> None:
        self.seconds, self._began = seconds, time.monotonic() - used

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def left(self) -> float:
        """Seconds that are left, never below 0."""
        return max(self.seconds - self.elapsed, 0.0)


Stage = tuple[str, Callable[[], StageOutcome]]


class StageRunner:
    """Runs stages one after the other."""

    def __init__(
        self,
        clock: Clock,
        on_begin: Callable[[str], None] = lambda name: None,
        on_end: Callable[[StageResult], None] | None = None,
    ) -> None:
        self.clock = clock
        self.names = Names()
        """What the fixes may name."""
        self._on_begin, self._on_end = on_begin, on_end
        self._results: list[StageResult] = []

    @property
    def failed(self) -> bool:
        """Whether a stage has failed; no later one runs."""
        return any(result.verdict is StageVerdict.FAIL for result in self._results)

    def run(self, stages: Iterable[Stage]) -> None:
        """Run stages until one fails; an error that a stage raises is its failure."""
        for name, stage in stages:
            if self.failed:
                return
            self._on_begin(name)
            began = time.perf_counter()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    outcome = stage()
            except Exception as error:  # noqa: BLE001 - whatever a stranger's model raises is a finding
                outcome = failure(error)
            result = StageResult(
                stage=name,
                verdict=outcome.verdict,
                figure=outcome.figure,
                seconds=time.perf_counter() - began,
                reason=outcome.reason,
                fix=named(outcome.fix, "", self.names),
                details=outcome.details,
            )
            self._results.append(result)
            if self._on_end is not None:
                self._on_end(result)

    def preflight(self) -> Preflight:
        """Return the results so far."""
        return Preflight(stages=tuple(self._results), seconds=self.clock.elapsed)


def failure(error: Exception, fix: str = "") -> StageOutcome:
    """Return an error as the outcome of its stage."""
    text = one_line(error)[:SAID]
    if "out of memory" in text.lower():
        fix = "Lower batch= or imgsz=, or free the device's memory."
    kind = "" if isinstance(error, YoloStableError) or text == type(error).__name__ else f"{type(error).__name__}: "
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return StageOutcome(details={"error": type(error).__name__, "traceback": [_frame(frame) for frame in frames]}).fail(
        f"{kind}{text}", fix or "Look at where it was raised: --traceback shows it."
    )


def _frame(frame: traceback.FrameSummary) -> str:
    return f"{frame.filename}:{frame.lineno} in {frame.name}"
