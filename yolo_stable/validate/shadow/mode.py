"""The dispatch mode of a shadowed step: it computes each operation of the device again on the host, on the same inputs.

Errors do not add up from one operation to the next: each is judged on what the device itself has made before. The limits are
those of one operation, in the types, orders in memory, shapes and places in which a training calls it.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..._shared.text import listed
from .call import HostCall, mapped, name_of, on_the_host, outputs, tensors_in, to_host
from .equivalents import translated
from .rules import NotJudgedError, Rule, rule_of

CALLS, _OCTAVES = 3, 3
"""Calls of one operation that are judged, where only their sizes differ, by less than so many powers of two."""
_SAID = 3
"""Wrong calls in a message."""


class Shadow(TorchDispatchMode):
    """Judges the operations that are called within: of calls that are alike but for small differences in size, the first few.

    It must be entered after the mode of a simulated device: what it calls has the fault then, and what it computes on the host
    has not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.judged = 0
        """Calls that were compared; never reset."""
        self.wrong: list[str] = []
        """What was wrong, a line for each call."""
        self.not_judged: Counter[str] = Counter()
        """Operations and why they could not be judged, with how often."""
        self.worst: dict[str, float] = {}
        """By operation and type, the largest error in parts of its limit."""
        self._seen: set[Any] = set()
        self._classes: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        rule = rule_of(func)
        if rule is None or not self._is_new(func, args, kwargs):
            return func(*args, **kwargs)
        with on_the_host():
            call = HostCall.of(func, args, kwargs)
        returned = func(*args, **kwargs)
        with on_the_host():
            found = [mapped(value, to_host) for value in outputs(func, args, kwargs, returned)]
            self._judge(*translated(call, found), rule, described(func, args, kwargs))
        return returned

    def _is_new(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        signature = func, _signature((args, tuple(kwargs.items())), sizes=True)
        if signature in self._seen:
            return False
        self._seen.add(signature)
        kind = func, _signature((args, tuple(kwargs.items())), sizes=False)
        self._classes[kind] += 1
        return self._classes[kind] <= CALLS

    def _judge(self, call: HostCall, found: list[Any], rule: Rule, words: str) -> None:
        if any(t.dtype == torch.float64 for t in call.tensors):
            self.not_judged[f"{call.name}: float64"] += 1
            return
        try:
            error, where = rule(call, found)
        except (NotJudgedError, RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as problem:
            self.not_judged[f"{call.name}: {' '.join(str(problem).split())[:80]}"] += 1
            return
        self.judged += 1
        key = f"{call.name}/{_type_of(call)}"
        self.worst[key] = max(self.worst.get(key, 0.0), error)
        if not error <= 1:
            self.wrong.append(f"{words}: {where}")

    def problems(self) -> list[str]:
        """Return what is wrong, in a few lines."""
        more = len(self.wrong) - _SAID
        return [*self.wrong[:_SAID], *([f"and {more} other calls"] if more > 0 else [])]


def described(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """Return a call in words: the operation, and the types, shapes and orders in memory of its first tensors."""
    tensors = [
        f"{str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}{_ORDERS[order_of(t)]}"
        for t in tensors_in(*args, *kwargs.values())
    ]
    return f"{name_of(func)}({listed(tensors)})"


_ORDERS = {"contiguous": "", "channels_last": " channels_last", "strided": " strided"}


def order_of(tensor: Tensor) -> str:
    """Return how a tensor lies in memory."""
    if tensor.is_contiguous():
        return "contiguous"
    if tensor.ndim == 4 and tensor.is_contiguous(memory_format=torch.channels_last):
        return "channels_last"
    return "strided"


def _signature(value: Any, *, sizes: bool) -> Any:
    if isinstance(value, Tensor):
        about = (value.numel().bit_length() // _OCTAVES, *(min(n, 2) for n in value.shape))
        shape = tuple(value.shape) if sizes else about
        return value.dtype, shape, order_of(value)
    if isinstance(value, (list, tuple)):
        if not sizes and len(value) > 2 and isinstance(value[0], Tensor):
            return len(value), _signature(value[0], sizes=False)
        return tuple(_signature(v, sizes=sizes) for v in value)
    if isinstance(value, float) and not sizes:
        return float
    return value if value.__hash__ is not None else repr(value)


def _type_of(call: HostCall) -> str:
    floating = [t.dtype for t in call.tensors if t.is_floating_point()]
    return str(min(floating, key=lambda d: torch.finfo(d).bits)).removeprefix("torch.") if floating else "exact"
