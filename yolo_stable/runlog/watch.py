"""Warning watch: keeps the newest records of a run for the warning rules; each warning comes once an epoch."""

from __future__ import annotations

from collections import deque

from ..guard.shares import Shares
from .step_record import StepRecord
from .warning_rules import (
    LOOKED_AT,
    SCALES,
    SPAN,
    TRENDS,
    Caution,
    Span,
    absurd_norm,
    is_below,
    loss_scale_falling,
    newest,
    norm_over_limit,
    norm_rising,
    one_layer_dominates,
)


class WarningWatch:
    """Applies the rules of ``runlog/warning_rules.py`` to the newest records.

    Args:
        limit: ``guard.warn_norm``.
        max_norm: ``guard.max_norm``.
        proportional: Whether a step is proportional to its gradient, as SGD's is: clipping does not harm one that is not, such as
            Adam's.
    """

    def __init__(self, limit: float | None, max_norm: float | None, *, proportional: bool = True) -> None:
        self.limit, self.max_norm, self.proportional = limit, max_norm, proportional
        self._told: set[str] = set()
        self._came_below = False
        self.forget()

    def forget(self) -> None:
        """Forget the records, as after a rollback: the state does not come from them."""
        self._spans: deque[Span] = deque(maxlen=SPAN)
        self._scales: deque[float] = deque(maxlen=SCALES)
        self._norms: deque[float] = deque(maxlen=TRENDS)
        self._layers: deque[Shares] = deque(maxlen=LOOKED_AT)

    def begin_epoch(self) -> None:
        """Allow every warning once more."""
        self._told.clear()

    def add(self, record: StepRecord, span: Span, *, warm_up: bool) -> list[Caution]:
        """Add a record and return the warnings.

        Args:
            record: The newest one.
            span: The norms of all steps since the last one.
            warm_up: Whether the learning rate still rises. Norm and scale have not settled then: only an absurd single norm and a
                dominating layer are warnings.
        """
        self._layers.append(record.layers if self.proportional and record.clip < 1.0 else ())
        found: list[Caution | None] = [one_layer_dominates(self._layers)]
        if self.limit is not None:
            found.append(absurd_norm(span, self.limit))
        if not warm_up:
            self._norms.append(record.norm)
            self._scales += [] if record.scale is None else [record.scale]
            found += [loss_scale_falling(self._scales), norm_rising(self._norms), self._size(span, record.step)]
        told = {caution.what: caution for caution in found if caution is not None and caution.what not in self._told}
        self._told.update(told)
        return list(told.values())

    def _size(self, span: Span, step: int) -> Caution | None:
        if self.limit is None:
            return None
        self._spans.append(span)
        seen = newest(self._spans)
        self._came_below |= seen is not None and is_below(seen)
        came_below, max_norm = self._came_below, self.max_norm
        return norm_over_limit(self._spans, self.limit, came_below=came_below, step=step, max_norm=max_norm)
