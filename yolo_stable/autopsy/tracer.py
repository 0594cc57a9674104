"""The dispatch mode that sees each operation of a pass, and notes where a value that is not finite is born."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .kinds import BOUNDED, Kind, kind_of
from .modules import OUTSIDE, Place, Places, caller, hooked_module, source_of
from .operation import in_float64, results
from .ranges import Range, damage_of, dtype_name, is_finite, range_of
from .taint import RAW, Birth, Origin, Taint, outside

_sequence = torch.autograd._get_sequence_nr
_node = torch._C._current_autograd_node
_KEEP = 1 << 20
"""Elements of an argument that an operation writes into, of which a copy is kept."""
_DETAILED = 256
"""Births of which everything is noted; later ones are known by place alone."""
_WIDE = 16
"""Births whose operation is done again in float64."""


class Stopped(BaseException):
    """Ends a pass from within: time is up, or the operation has been reached. Not an ``Exception``, which a loss may catch."""


@dataclass(slots=True)
class _Call:
    """A forward operation that autograd will come back to."""

    place: Place
    op: str
    ordinal: int
    code: CodeType | None
    line: int | None


@dataclass(slots=True)
class _Before:
    """The arguments of an operation that writes into them, as they were."""

    args: list[Any]
    kwargs: dict[str, Any]
    bad: set[int] = field(default_factory=set)
    """Ids of the written arguments that were not finite."""
    lost: set[int] = field(default_factory=set)
    """Ids of those of which no copy was kept."""


class Tracer(TorchDispatchMode):
    """Notes each operation whose result is not finite, and what it depends on.

    Args:
        places: Knows the running module.
        anchor: The function that runs the pass: no line above it is a source.
        until: When to give up, in seconds of :func:`time.monotonic`.
        stop_at: The operation to stop at.
        on_stop: Called there with the birth (None when the operation is healthy), the frame and the operation's arguments.
    """

    def __init__(
        self,
        places: Callable[[Callable[[], int]], Places],
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
        """What was handed to Python as a number."""
        self.backward_from: int | None = None
        self.places = places(lambda: self.ordinal)
        self._anchor = anchor
        self._until = math.inf if until is None else until
        self._stop_at = stop_at
        self._on_stop = on_stop
        self._kinds: dict[int, Kind] = {}
        self._calls: dict[int, _Call] = {}
        self._seen = _sequence() - 1
        self._born_at: dict[int, Birth] = {}
        self._waiting: list[Birth] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Spare each operation the detour through Dynamo: what is compiled runs plainly while a mode is on."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = self._kinds.get(id(func))
        if kind is None:
            kind = self._kinds[id(func)] = kind_of(func)
        sequence = _sequence() - 1
        if sequence > self._seen:
            self._seen = sequence
            self._note(sequence, kind)
        if self._waiting:
            self._settle()
        if kind.view:
            return func(*args, **kwargs) if kwargs else func(*args)
        self.ordinal += 1
        if time.monotonic() > self._until:
            raise Stopped
        before = self._before(kind, args, kwargs or {}) if kind.writes else None
        returned = func(*args, **kwargs) if kwargs else func(*args)
        if kind.raw:
            self._mark_raw(returned)
        elif before is None and type(returned) is Tensor:
            if not _fine(returned):
                self._look(kind, args, kwargs or {}, [returned], [0], None)
            elif self.taint.table:
                _quietly(self.taint.clear, returned)
        else:
            self._several(kind, args, kwargs or {}, returned, before)
        if self.ordinal == self._stop_at:
            self._stop(kind, args, kwargs or {}, returned)
        return returned

    def outside(self, name: str, tensor: Tensor) -> None:
        """Remember a parameter, buffer or input that is not finite before the first operation."""
        if type(tensor) in (Tensor, nn.Parameter) and not _fine(tensor):
            origin = outside(tensor, name)
            if origin is not None:
                self.taint.mark(tensor, {origin})

    def _several(self, kind: Kind, args: Any, kwargs: Any, returned: Any, before: _Before | None) -> None:
        """Check an operation with many results, or one that writes into its arguments."""
        if not kind.writes and not isinstance(returned, (list, tuple)):
            # A number for Python, or a tensor of a kind of its own.
            if isinstance(returned, float) and not math.isfinite(returned):
                self.read |= {tag for t in args if isinstance(t, Tensor) for tag in self.taint.of(t)}
            return
        found = results(returned, kind, args, kwargs)
        bad = [i for i, t in enumerate(found) if type(t) in (Tensor, nn.Parameter) and not _fine(t)]
        if bad:
            self._look(kind, args, kwargs, found, bad, before)
        elif self.taint.table:
            for tensor in found:
                if isinstance(tensor, Tensor):
                    _quietly(self.taint.clear, tensor, written=bool(kind.writes))

    def _before(self, kind: Kind, args: Any, kwargs: Any) -> _Before | None:
        """Keep what an operation is about to write over, as far as it reads it and as it is cheap."""
        if kind.hidden and not args[5]:
            return _Before(args, kwargs)
        kept = _Before(list(args), dict(kwargs))
        for write in kind.writes:
            held: Any = kept.kwargs if isinstance(write.position, str) else kept.args
            whole = _get(held, write.position)
            for tensor in whole if isinstance(whole, (list, tuple)) else [whole]:
                if not isinstance(tensor, Tensor) or not write.read:
                    continue
                if self.taint.table and self.taint.of(tensor) and not _fine(tensor):
                    kept.bad.add(id(tensor))
                if kind.name in BOUNDED or tensor.numel() > _KEEP or tensor is not whole:
                    kept.lost.add(id(tensor))
            tensor = whole
            if not isinstance(tensor, Tensor) or not write.read or id(tensor) in kept.lost:
                continue
            copy = tensor.detach().clone()
            if id(tensor) in kept.bad:
                self.taint.mark(copy, self.taint.of(tensor))
            held[write.position] = copy
        return kept

    def _look(
        self, kind: Kind, args: Any, kwargs: Any, found: Sequence[Any], bad: list[int], before: _Before | None
    ) -> None:
        """A result is not finite: find out whether it was born here, and remember what it comes from."""
        with torch.no_grad():
            written = {id(t) for t in found} if kind.writes else set()
            tags, literal = self._inputs(kind, args, kwargs, before)
            parent = None if tags else self._parent()
            births: set[Birth | Origin] = {tag for tag in tags if isinstance(tag, Birth)}
            births |= {tag.birth for tag in tags if isinstance(tag, Origin) and tag.birth is not None}
            new: list[Origin | None] = [tag for tag in tags if isinstance(tag, Origin) and tag.birth is None]
            if parent is not None:
                births.add(parent)
            for origin in new if tags or parent is not None else [None]:
                birth = self._birth(kind, args, kwargs, found, bad[0], before, origin, literal)
                self.births.append(birth)
                self._born_at.setdefault(self.ordinal, birth)
                births.add(birth)
                if origin is not None and origin is not RAW:
                    origin.birth = birth
            for i, tensor in enumerate(found):
                if not isinstance(tensor, Tensor):
                    continue
                if i in bad:
                    self.taint.mark(tensor, births, add=id(tensor) in written)
                else:
                    _quietly(self.taint.clear, tensor, written=id(tensor) in written)

    def _inputs(self, kind: Kind, args: Any, kwargs: Any, before: _Before | None) -> tuple[set[Birth | Origin], bool]:
        """Return what the inputs that are not finite come from, and whether a number in the code is not finite."""
        tags: set[Birth | Origin] = set()
        read = self._tensors(kind, args, kwargs, before)
        unknown = []
        for _, tensor, still in read:
            known, sure = self.taint.look(tensor)
            if not known:
                unknown.append((tensor, still))
            elif sure or (not _fine(tensor) if still or before is None else id(tensor) in before.bad):
                tags |= known
        if any(not tag.soft for tag in tags):
            return tags, False  # all results were looked at, so what is not in the table is finite
        literal = any(isinstance(a, float) and not math.isfinite(a) for a in tree_leaves((args, kwargs)))
        for tensor, still in unknown:
            if not still or _fine(tensor):
                continue
            if tensor.numel() == 1:
                literal = True
            else:
                shape = "x".join(map(str, tensor.shape))
                origin = outside(tensor, f"a tensor from outside, {shape} {dtype_name(tensor.dtype)}")
                if origin is not None:
                    self.taint.mark(tensor, {origin})
                    tags.add(origin)
        return tags, literal

    def _tensors(self, kind: Kind, args: Any, kwargs: Any, before: _Before | None) -> list[tuple[str, Tensor, bool]]:
        """Return the tensors that an operation read: name, the tensor, and whether it still holds what was read."""
        over = {
            id(_get(kwargs if isinstance(w.position, str) else args, w.position)) for w in kind.writes if not w.read
        }
        if before is not None:
            args, kwargs = before.args, before.kwargs
        named = [(kind.arguments[i] if i < len(kind.arguments) else str(i), a) for i, a in enumerate(args)]
        read = []
        for name, value in [*named, *kwargs.items()]:
            members = value if isinstance(value, (list, tuple)) else [value]
            for i, member in enumerate(members):
                if type(member) not in (Tensor, nn.Parameter) or id(member) in over:
                    continue
                if member.is_floating_point() or member.is_complex():
                    label = f"{name}.{i}" if member is not value else name
                    read.append((label, member, before is None or id(member) not in before.lost))
        return read

    def _birth(
        self,
        kind: Kind,
        args: Any,
        kwargs: Any,
        found: Sequence[Any],
        output: int,
        before: _Before | None,
        origin: Origin | None,
        literal: bool,
    ) -> Birth:
        """Note everything that is known of a break while its tensors are alive."""
        place, frame = self.places.now, caller(sys._getframe(1), self._anchor)
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
            damage = damage_of(broken)
            facts |= {
                "index": damage.index,
                "value": damage.value,
                "non_finite": damage.non_finite,
                "rows": damage.rows,
                "inputs": tuple(
                    range_of(name, t)
                    if still
                    else Range(name=name, dtype=dtype_name(t.dtype), shape=tuple(t.shape), numel=t.numel())
                    for name, t, still in self._tensors(kind, args, kwargs, before)
                ),
            }
            soft = (literal or (origin is not None and origin.soft)) and damage.only_minus
            if origin is not None or literal:
                facts["wide"] = "not finite"
            elif len(self.births) < _WIDE and not (before is not None and before.lost and kind.name not in BOUNDED):
                row = damage.rows[0] if damage.rows else None
                again = (before.args, before.kwargs) if before is not None else (args, kwargs)
                facts["wide"] = in_float64(kind, *again, output, broken, row)
        birth = Birth(self.ordinal, soft, place, facts)
        if self.backward_from is not None or _node() is not None:
            self._belongs(birth, frame)
        return birth

    def _belongs(self, birth: Birth, frame: FrameType | None) -> None:
        """Find the forward operation whose gradient an operation of the backward pass computes."""
        if birth.place is not OUTSIDE:
            return  # a forward pass within the backward pass, as checkpointing does it
        owner, node = hooked_module(sys._getframe(1)), _node()
        if owner is not None:
            birth.place = self.places.place_of(owner)
        elif node is not None:
            self._assign(birth, node)
        else:
            # A hook on a gradient, which runs just before the node that takes that gradient.
            self._waiting.append(birth)

    def _assign(self, birth: Birth, node: Any) -> None:
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            birth.place = self.places.owner_of(variable)
            return
        call = self._calls.get(node._sequence_nr())
        if call is not None:
            birth.place = call.place
            birth.facts["forward_op"] = call.op
            birth.facts["forward_source"] = source_of(call.code, call.line)

    def _settle(self) -> None:
        """Give hooks' operations the node that came after them."""
        node = _node()
        if node is not None:
            for birth in self._waiting:
                self._assign(birth, node)
            self._waiting.clear()

    def _parent(self) -> Birth | None:
        """Return the break of the forward operation whose gradient is being computed, however well it was hidden."""
        node = _node()
        call = None if node is None or self.places.now is not OUTSIDE else self._calls.get(node._sequence_nr())
        return None if call is None else self._born_at.get(call.ordinal)

    def _note(self, sequence: int, kind: Kind) -> None:
        frame = caller(sys._getframe(2), self._anchor)
        code, line = (frame.f_code, frame.f_lineno) if frame is not None else (None, None)
        self._calls[sequence] = _Call(self.places.now, kind.op, self.ordinal + (not kind.view), code, line)

    def _mark_raw(self, returned: Any) -> None:
        for tensor in returned if isinstance(returned, (list, tuple)) else [returned]:
            if isinstance(tensor, Tensor) and tensor.is_floating_point():
                _quietly(self.taint.mark, tensor, {RAW})

    def _stop(self, kind: Kind, args: Any, kwargs: Any, returned: Any) -> None:
        frame = caller(sys._getframe(2), self._anchor)
        names = dict(frame.f_locals) if frame is not None else {}
        names |= {"op_args": args, "op_kwargs": kwargs, "op_result": returned}
        if self._on_stop is not None:
            born = [b for b in self.births if b.ordinal == self.ordinal]
            self._on_stop(born[0] if born else None, names)
        raise Stopped


def _fine(tensor: Tensor) -> bool:
    """Return whether a tensor is finite, as far as that can be asked of its kind: one without values counts as finite."""
    try:
        return is_finite(tensor)
    except (RuntimeError, TypeError):
        return True


def _quietly(change: Callable[..., None], tensor: Tensor, *more: Any, **named: Any) -> None:
    """Change the taint of a tensor, unless it has no storage: sparse ones and those of other backends."""
    try:
        change(tensor, *more, **named)
    except (RuntimeError, NotImplementedError):
        return


def _get(held: Sequence[Any] | Mapping[str, Any], position: Any) -> Any:
    if isinstance(held, Mapping):
        return held.get(position)
    return held[position] if position < len(held) else None
