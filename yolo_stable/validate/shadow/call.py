"""A call of an operation on the host: its arguments before it ran, its results, and the same call computed there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

_HOST = torch.device("cpu")
_RUNNING = {"native_batch_norm": ("running_mean", "running_var"), "cudnn_batch_norm": ("running_mean", "running_var"),
            "miopen_batch_norm": ("running_mean", "running_var")}  # fmt: skip
"""Arguments that an operation writes into, though its schema does not say so."""
SMALLEST = 2.0**-126
"""Smallest normal number of float32 and bfloat16: what is below may be flushed to zero, before an operation or after it."""


@contextmanager
def on_the_host() -> Iterator[None]:
    """Let torch alone compute what is within: no mode sees it, no autocast changes its types."""
    with torch._C._DisableTorchDispatch(), torch.no_grad(), torch.autocast("cpu", enabled=False):
        yield


def name_of(func: Any) -> str:
    """Return an operation's name without its namespace and overload, such as ``convolution_backward``."""
    return str(func).split(".")[1]


@lru_cache(maxsize=4096)
def written(func: Any) -> tuple[tuple[int, str], ...]:
    """Return position and name of the arguments that an operation writes into."""
    hidden = _RUNNING.get(name_of(func), ())
    found = []
    for i, argument in enumerate(func._schema.arguments):
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if is_written or argument.name in hidden:
            found.append((i, argument.name))
    return tuple(found)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return an argument with each of its leaves changed; lists stay lists."""
    if isinstance(value, (list, tuple)):
        return [mapped(v, change) for v in value]
    return change(value)


def tensors_in(*values: Any) -> list[Tensor]:
    """Return the tensors among arguments, those in lists included."""
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += tensors_in(*value)
    return found


def to_host(value: Any) -> Any:
    """Return a leaf for the host: a copy of a tensor, the CPU instead of another device."""
    if isinstance(value, Tensor):
        return value.detach().to(_HOST, copy=True)
    return _HOST if isinstance(value, torch.device) else value


def to_double(value: Any) -> Any:
    """Return a floating leaf in float64: the tensor, or the type itself."""
    if isinstance(value, Tensor):
        return value.double() if value.is_floating_point() else value
    return torch.float64 if isinstance(value, torch.dtype) and value.is_floating_point else value


def to_absolute(value: Any) -> Any:
    """Return a floating leaf without its sign."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.abs()
    return abs(value) if isinstance(value, float) else value


def flushed(value: Any) -> Any:
    """Return a tensor with the numbers that a device may flush to zero set to zero."""
    if isinstance(value, Tensor) and value.is_floating_point():
        return value.masked_fill(value.abs() < SMALLEST, 0.0)
    return value


def copied(value: Any) -> Any:
    """Return a leaf that an operation may write into."""
    return value.clone() if isinstance(value, Tensor) else value


@dataclass(frozen=True, kw_only=True)
class HostCall:
    """A call with all of its tensors on the host, as they were before it ran."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> HostCall:
        """Take a call to the host."""
        return cls(
            func=func,
            args=tuple(mapped(a, to_host) for a in args),
            kwargs={k: mapped(v, to_host) for k, v in kwargs.items()},
        )

    @property
    def name(self) -> str:
        """Return the operation's name."""
        return name_of(self.func)

    @property
    def tensors(self) -> list[Tensor]:
        """Return all tensors among the arguments."""
        return tensors_in(*self.args, *self.kwargs.values())

    def changed(self, change: Callable[[Any], Any], position: int | None = None) -> HostCall:
        """Return the call with its leaves changed: those of one argument, or of all, the named ones included."""
        return HostCall(
            func=self.func,
            args=tuple(mapped(a, change) if position in (None, i) else a for i, a in enumerate(self.args)),
            kwargs={k: mapped(v, change) for k, v in self.kwargs.items()} if position is None else self.kwargs,
        )

    def doubled(self) -> HostCall:
        """Return the call in float64; fused optimizers take their scale and flag in float32 only."""
        kwargs = self.kwargs if self.name.startswith("_fused_") else None
        changed = self.changed(to_double)
        return changed if kwargs is None else replace(changed, kwargs=kwargs)

    def run(self) -> list[Any]:
        """Compute it here, on copies of what it writes into."""
        args, kwargs = list(self.args), dict(self.kwargs)
        for position, name in written(self.func):
            if position < len(args):
                args[position] = mapped(args[position], copied)
            elif name in kwargs:
                kwargs[name] = mapped(kwargs[name], copied)
        returned = self.func(*args, **kwargs)
        return outputs(self.func, tuple(args), kwargs, returned)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """Return an argument by its position or its name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def has_denormals(self) -> bool:
        """Return whether a number among the arguments may be flushed to zero."""
        return any(_has_denormals(t.abs()) for t in self.tensors if t.is_floating_point())


def _has_denormals(size: Tensor) -> bool:
    return bool(((size < SMALLEST) & (size > 0)).any())


def outputs(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], returned: Any) -> list[Any]:
    """Return what a call wrote and returned, each once: tensors, numbers and None."""
    found: list[Any] = []
    for position, name in written(func):
        found += _flat(args[position] if position < len(args) else kwargs.get(name))
    kinds = func._schema.returns
    values = [returned] if len(kinds) == 1 else list(returned or ())
    for kind, value in zip(kinds, values, strict=True):
        if kind.alias_info is None or not kind.alias_info.is_write:
            found += _flat(value)
    return found


def _flat(value: Any) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in _flat(v)]
    return [value]
