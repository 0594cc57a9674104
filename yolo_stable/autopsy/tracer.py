"""Operation tracer: a dispatch mode that sees each operation of a pass and records where a non-finite value is born.

Blame is causal. A non-finite value carries its break, by storage, to everything that depends on it (``taint.py``); at the end the
results tell which breaks they depend on, so an infinity that is masked is not blamed. Autograd's sequence number maps a backward
operation to its forward one (``history.py``). The broken operation is repeated in float64 on the CPU (``operation.py``): finite
there and in range means that the device computed wrongly.
"""

from __future__ import annotations

import math
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .arguments import ArgumentsBefore, fine, keep, origins, tensors_read
from .history import AutogradHistory, in_backward, sequence
from .kinds import BOUNDED, MASKS, SOFTMAXES, OperationKind, kind_of
from .modules import ModuleTracker, caller, source_of
from .operation import Budget, in_float64, results
from .ranges import Range, damage_of, dtype_name, range_of
from .taint import LITERAL, RAW, Birth, Origin, Taint, outside

_DETAILED = 256
"""Births with full details; later ones have only their place."""


class Stopped(BaseException):
    """Ends a pass from within when time is up or the operation is reached. A loss might catch an ``Exception``."""


class OperationTracer(TorchDispatchMode):
    """Records each operation with a non-finite result, and what that depends on.

    Args:
        places: Knows the running module.
        anchor: The function that runs the pass; its callers are no source.
        until: When to give up, in seconds of :func:`time.monotonic`.
        stop_at: The operation to stop at.
        on_stop: Called there with the birth (None if the operation is healthy) and the local variables.
    """

    def __init__(
        self,
        places: Callable[[Callable[[], int]], ModuleTracker],
        anchor: CodeType,
        *,
        until: float | None = None,
        stop_at: int | None = None,
        on_stop: Callable[[Birth | None, dict[str, Any]], None] | None = None,
    ) -> None:
        super().__init__()
        self.ordinal = 0
        self.taint = Taint()
        self.births: list[Birth] = []
        self.read: set[Birth | Origin] = set()
        """Origins of what became a Python number."""
        self.backward_from: int | None = None
        own = weakref.proxy(self)
        self.places = places(lambda: own.ordinal)
        self._anchor = anchor
        self._until = math.inf if until is None else until
        self._stop_at = stop_at
        self._on_stop = on_stop
        self._budget = Budget()
        self._kinds: dict[int, OperationKind] = {}
        self.history = AutogradHistory(self.places, anchor)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare each operation the detour through Dynamo: compiled code runs uncompiled while a mode is on."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = self._kinds.get(id(func))
        if kind is None:
            kind = self._kinds[id(func)] = kind_of(func)
        number = sequence() - 1
        if number > self.history.seen:
            self.history.note(number, kind.op, self.ordinal + (not kind.view))
        if self.history.waiting:
            self.history.settle()
        if kind.view:
            returned = func(*args, **kwargs) if kwargs else func(*args)
            if kind.constant and type(returned) is Tensor and not self.taint.of(returned) and not fine(returned):
                self.taint.mark(returned, {LITERAL})
            return returned
        self.ordinal += 1
        if time.monotonic() > self._until:
            raise Stopped
        before = keep(self.taint, kind, args, kwargs or {}) if kind.writes else None
        returned = func(*args, **kwargs) if kwargs else func(*args)
        if kind.raw:
            self._mark_raw(returned)
        elif before is None and type(returned) is Tensor:
            if not fine(returned):
                self._look(kind, args, kwargs or {}, [returned], [0], None)
            elif self.taint.table:
                self.taint.clear(returned)
        else:
            self._several(kind, args, kwargs or {}, returned, before)
        if self.ordinal == self._stop_at:
            self._stop(kind, args, kwargs or {}, returned)
        return returned

    def outside(self, name: str, tensor: Tensor) -> None:
        """Remember a parameter, buffer or input that is not finite from the start."""
        if type(tensor) in (Tensor, nn.Parameter) and not fine(tensor):
            origin = outside(tensor, name)
            if origin is not None:
                self.taint.mark(tensor, {origin})

    def _several(
        self, kind: OperationKind, args: Any, kwargs: Any, returned: Any, before: ArgumentsBefore | None
    ) -> None:
        """Check an operation with many results, or one that writes into its arguments."""
        if not kind.writes and not isinstance(returned, (list, tuple)):
            # A Python number, or a tensor subclass.
            if isinstance(returned, float) and not math.isfinite(returned):
                self.read |= {tag for t in args if isinstance(t, Tensor) for tag in self.taint.of(t)}
            return
        found = results(returned, kind, args, kwargs)
        bad = [i for i, t in enumerate(found) if type(t) in (Tensor, nn.Parameter) and not fine(t)]
        if bad:
            self._look(kind, args, kwargs, found, bad, before)
        elif self.taint.table:
            for tensor in found:
                if isinstance(tensor, Tensor):
                    self.taint.clear(tensor, written=bool(kind.writes))

    def _look(
        self,
        kind: OperationKind,
        args: Any,
        kwargs: Any,
        found: Sequence[Any],
        bad: list[int],
        before: ArgumentsBefore | None,
    ) -> None:
        """Find out whether a non-finite result was born here, and remember its origin."""
        with torch.no_grad():
            written = {id(t) for t in found} if kind.writes else set()
            tags, literal = origins(self.taint, kind, args, kwargs, before)
            parent = None if tags else self.history.parent()
            masked = kind.name in SOFTMAXES and bool(tags) and all(map(_is_mask, tags))
            if masked and any(_has_nan(found[i]) for i in bad):
                tags = set()  # -Inf is intended here; a row of nothing but -Inf breaks it
            births: set[Birth | Origin] = {tag for tag in tags if isinstance(tag, Birth)}
            births |= {tag.birth for tag in tags if isinstance(tag, Origin) and tag.birth is not None}
            new: list[Origin | None] = [tag for tag in tags if isinstance(tag, Origin) and tag.birth is None]
            if parent is not None:
                births.add(parent)
            for origin in new if tags or parent is not None else [None]:
                birth = self._birth(kind, args, kwargs, found, bad[0], before, origin, literal)
                self.births.append(birth)
                self.history.born(birth)
                births.add(birth)
                if origin is not None and origin is not RAW:
                    origin.birth = birth
            for i, tensor in enumerate(found):
                if not isinstance(tensor, Tensor):
                    continue
                if i in bad:
                    self.taint.mark(tensor, births, add=id(tensor) in written)
                else:
                    self.taint.clear(tensor, written=id(tensor) in written)

    def _birth(
        self,
        kind: OperationKind,
        args: Any,
        kwargs: Any,
        found: Sequence[Any],
        output: int,
        before: ArgumentsBefore | None,
        origin: Origin | None,
        literal: bool,
    ) -> Birth:
        """Record a break while its tensors are alive."""
        place, frame = self.places.here(sys._getframe(1), self._anchor), caller(sys._getframe(1), self._anchor)
        broken = found[output]
        facts: dict[str, Any] = {
            "op": kind.op,
            "source": source_of(frame.f_code, frame.f_lineno) if frame else "",
            "output": output,
            "origin": origin.name if origin else "",
            "dtype": dtype_name(broken.dtype),
            "shape": tuple(broken.shape),
            "numel": broken.numel(),
        }
        soft = False
        if len(self.births) < _DETAILED:
            try:
                facts |= self._details(kind, args, kwargs, broken, output, before, origin, literal)
            except (RuntimeError, TypeError):  # an unreadable dtype or layout; the place is known anyway
                facts["value"] = ""
            only_minus = facts.pop("only_minus", False)
            soft = only_minus and (literal or (origin is not None and origin.soft))
        birth = Birth(self.ordinal, soft, place, facts)
        if self.backward_from is not None or in_backward():
            self.history.belongs(birth)
        return birth

    def _details(
        self,
        kind: OperationKind,
        args: Any,
        kwargs: Any,
        broken: Tensor,
        output: int,
        before: ArgumentsBefore | None,
        origin: Origin | None,
        literal: bool,
    ) -> dict[str, Any]:
        """Return the damage, the ranges of the inputs, and the verdict of float64."""
        damage = damage_of(broken)
        ranges = tuple(
            range_of(name, t)
            if still
            else Range(name=name, dtype=dtype_name(t.dtype), shape=tuple(t.shape), numel=t.numel())
            for name, t, still in tensors_read(kind, args, kwargs, before)
        )
        wide = ""
        if origin is not None or literal:
            wide = "not finite"
        elif before is None or not before.lost or kind.name in BOUNDED:
            again = (before.args, before.kwargs) if before is not None else (args, kwargs)
            row = damage.rows[0] if damage.rows else None
            wide = in_float64(kind, *again, output, broken, row, self._budget)
        return {
            "index": damage.index,
            "value": damage.value,
            "non_finite": damage.non_finite,
            "rows": damage.rows,
            "only_minus": damage.only_minus,
            "inputs": ranges,
            "wide": wide,
        }

    def _mark_raw(self, returned: Any) -> None:
        for tensor in returned if isinstance(returned, (list, tuple)) else [returned]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                self.taint.mark(tensor, {RAW})

    def _stop(self, kind: OperationKind, args: Any, kwargs: Any, returned: Any) -> None:
        frame = caller(sys._getframe(2), self._anchor)
        names = dict(frame.f_locals) if frame is not None else {}
        names |= {"op_args": args, "op_kwargs": kwargs, "op_result": returned}
        if self._on_stop is not None:
            born = [b for b in self.births if b.ordinal == self.ordinal]
            self._on_stop(born[0] if born else None, names)
        raise Stopped


def _is_mask(tag: Birth | Origin) -> bool:
    birth = tag.birth if isinstance(tag, Origin) else tag
    return tag.soft and (birth is None or isinstance(tag, Origin) or str(birth.facts["op"]).split(".")[1] in MASKS)


def _has_nan(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and tensor.is_floating_point() and bool((tensor != tensor).any())


@contextmanager
def plainly() -> Iterator[None]:
    """Run compiled code uncompiled, so that each operation is visible."""
    if "torch._dynamo" not in sys.modules:  # nothing has been compiled
        yield
        return
    with torch.compiler.set_stance("force_eager"), warnings.catch_warnings():
        # A compiled model warns that global hooks fire once more for it.
        warnings.filterwarnings("ignore", "Using `torch.compile")
        yield
